"""The stores of template.yaml on moto, and the whole function before them."""

import base64
import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from moto import mock_aws

from cli.stack import LOCAL_CREDENTIALS, LOCAL_REGION, LocalStack, create_local_stack
