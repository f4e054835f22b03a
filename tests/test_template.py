"""template.yaml, before and after the transformation that CloudFormation applies to it."""

import json
import re
import tomllib
from graphlib import TopologicalSorter

import pytest
from samtranslator.translator.transform import transform

import consumer.handle
from consumer.eraser import LATEST_WRITE_SECONDS
from consumer.stream import MESSAGE_SECONDS
from destination.deployment.clients import LOCAL_REGION
from destination.deployment.stack import FUNCTION, ROOT, STORE_TYPES, check_parameters, load_template
from handler.routes import HEALTH, ROUTES, CallRoute
from handler.settings import MAX_BACKOFF_SECONDS, STORE_CALL_SECONDS, Settings
from handler.spec import DELETE

SEGMENT_GIVES_UP_SECONDS = 5


def of_type(resources, kind):
    return {name: resource for name, resource in resources.items() if resource["Type"] == kind}


def properties_of(kind):
    return {name: resource["Properties"] for name, resource in of_type(RESOURCES, kind).items()}


TEMPLATE = load_template()
RESOURCES = TEMPLATE["Resources"]
STORES = {name: resource for name, resource in RESOURCES.items() if resource["Type"] in STORE_TYPES}
TABLES = properties_of("AWS::DynamoDB::Table")
QUEUES = properties_of("AWS::SQS::Queue")
FUNCTIONS = properties_of("AWS::Serverless::Function")
ROLES = properties_of("AWS::IAM::Role")
SOURCES = {
    f"{function}{name}": source
    for function, properties in FUNCTIONS.items()
    for name, source in properties["Events"].items()
    if source["Type"] in ("DynamoDB", "SQS")
}
"""What brings batches to functions."""


def statements_of(role):
    """Return the statements of a role, those of either branch of a condition among them."""
    for policy in ROLES[role]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            branches = statement["Fn::If"][1:] if "Fn::If" in statement else [statement]
            yield from (branch for branch in branches if branch != {"Ref": "AWS::NoValue"})


def names_in(statement):
    """Return the stores, logs or streams that a statement is about, as `EventTable.Arn`."""
    resource = statement["Resource"]
    branches = resource["Fn::If"][1:] if "Fn::If" in resource else [resource]
    return {branch["Fn::Sub"] if "Fn::Sub" in branch else ".".join(branch["Fn::GetAtt"]) for branch in branches}


def granted(role):
    """Return what a role may do, as pairs of action and resource."""
    return {
        (action, name)
        for statement in statements_of(role)
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        for name in names_in(statement)
    }


class NoManagedPolicies:
    def load(self):
        return {}


def deployed(**parameters):
    """Return the resources that CloudFormation makes of the template's."""
    template = load_template()
    for function in of_type(template["Resources"], "AWS::Serverless::Function").values():
        function["Properties"]["CodeUri"] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", LOCAL_REGION)
        return transform(template, parameters, NoManagedPolicies())["Resources"]


@pytest.fixture(scope="module")
def transformed():
    return deployed()


def named_in(value):
    """Yield what a part of the transformed template names, of whatever attribute of a resource."""
    match value:
        case {"Ref": name} | {"Fn::GetAtt": [name, _]}:
            yield name
        case {"Fn::Sub": str(text)} | {"Fn::Sub": [str(text), *_]}:
            yield from re.findall(r"\$\{(\w+)", text)
        case {"DependsOn": str(name)}:
            yield name
        case {"DependsOn": [*names]}:
            yield from names
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from named_in(part)


def test_no_resource_waits_for_itself(transformed):
    """An alarm of a rollout that names the API would: the API names the alias, and the alias its rollout."""
    waits_for = {name: set(named_in(resource)) & transformed.keys() for name, resource in transformed.items()}
    assert len(list(TopologicalSorter(waits_for).static_order())) == len(transformed)


@pytest.mark.parametrize("name", STORES)
def test_a_store_survives_the_stack_and_any_change_of_the_sink(name):
    # What a first deployment made that failed is empty.
    policies = [STORES[name][policy] for policy in ("UpdateReplacePolicy", "DeletionPolicy")]
    assert policies == ["Retain", "RetainExceptOnCreate"]
    assert "Condition" not in STORES[name]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_paid_by_use_encrypted_and_backed_up(name):
    assert TABLES[name]["BillingMode"] == "PAY_PER_REQUEST"
    assert TABLES[name]["SSESpecification"] == {"SSEEnabled": True}
    assert TABLES[name]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert TABLES[name]["DeletionProtectionEnabled"] == {"Fn::If": ["TablesAreProtected", True, False]}


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_encrypted_and_takes_the_largest_message(name):
    assert QUEUES[name]["SqsManagedSseEnabled"] is True
    assert QUEUES[name]["MaximumMessageSize"] == 1024 * 1024


@pytest.mark.parametrize(
    ("queue", "dead_letters"),
    [("EventQueue", "EventDeadLetterQueue"), ("EventFifoQueue", "EventFifoDeadLetterQueue")],
)
def test_what_a_consumer_can_not_take_goes_to_a_queue_of_the_same_kind(queue, dead_letters):
    assert QUEUES[queue]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead_letters, "Arn"]}
    assert QUEUES[queue].get("FifoQueue") == QUEUES[dead_letters].get("FifoQueue")


def test_the_event_table_streams_new_items():
    assert TABLES["EventTable"]["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_nothing_has_a_physical_name():
    names = {"TableName", "QueueName", "FunctionName", "RoleName", "AlarmName", "DashboardName", "FilterName", "Name"}
    named = [name for name, resource in RESOURCES.items() if names & set(resource["Properties"])]
    assert named == ["DomainRecord"]
    assert not [name for name, log in properties_of("AWS::Logs::LogGroup").items() if "LogGroupName" in log]


@pytest.mark.parametrize("name", TEMPLATE["Parameters"])
def test_a_parameter_is_described_and_has_a_default(name):
    assert TEMPLATE["Parameters"][name]["Description"]
    assert "Default" in TEMPLATE["Parameters"][name]


# The functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_functions_are_built_from_one_artifact_and_run_it_alike(name):
    assert RESOURCES[name]["Metadata"] == {"BuildMethod": "makefile"}
    alike = ("CodeUri", "Runtime", "Architectures")
    assert [FUNCTIONS[name][part] for part in alike] == [FUNCTIONS[FUNCTION][part] for part in alike]
    assert f"build-{name}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_handler_is_a_function_of_ours(name):
    module, _, function = FUNCTIONS[name]["Handler"].rpartition(".")
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert f"\ndef {function}(" in source.read_text()


def test_every_environment_variable_is_a_setting_and_every_setting_a_variable():
    environment = FUNCTIONS[FUNCTION]["Environment"]["Variables"]
    read_by_boto3 = {"AWS_ENDPOINT_URL"}
    derived_from_it = {"ACCEPT_DEMO_KEYS"}
    set_by_lambda = {"AWS_LAMBDA_FUNCTION_VERSION"}
    settings = {name.upper() for name in Settings.__dataclass_fields__}
    assert set(environment) - read_by_boto3 == settings - derived_from_it - set_by_lambda


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("EraserFunction", ["eraser"]),
        ("StreamConsumerFunction", ["stream", "runtime/forward", "handle"]),
        ("QueueConsumerFunction", ["queue", "runtime/forward", "handle"]),
    ],
)
def test_a_function_beside_the_requests_has_the_environment_that_it_reads(name, readers):
    code = "".join((ROOT / "consumer" / f"{reader}.py").read_text() for reader in readers)
    read = re.findall(r'os\.environ\["(\w+)"\]', code)
    read_by_libraries = {"AWS_ENDPOINT_URL", "POWERTOOLS_SERVICE_NAME"}
    assert set(FUNCTIONS[name]["Environment"]["Variables"]) == {*read, *read_by_libraries}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_logs_where_its_role_may_write(name, transformed):
    [log] = transformed[name]["Properties"]["LoggingConfig"].values()
    [role, _arn] = transformed[name]["Properties"]["Role"]["Fn::GetAtt"]
    written = {(action, target) for action, target in granted(role) if action.startswith("logs:")}
    assert written == {(action, f"{log['Ref']}.Arn") for action in ("logs:CreateLogStream", "logs:PutLogEvents")}


def test_every_log_has_an_end():
    for log in properties_of("AWS::Logs::LogGroup").values():
        assert log["RetentionInDays"] == {"Ref": "LogRetentionDays"}


# A new version of the function


PROPERTIES = FUNCTIONS[FUNCTION]
NOT_OF_A_VERSION = {"AutoPublishAlias", "VersionDescription", "DeploymentPreference", "ReservedConcurrentExecutions"}
"""Properties of the function that say how it is deployed, and are no part of a version."""


def parameters_in(value):
    """Return the parameters that a value is made of, those of its conditions among them."""
    text = json.dumps(value)
    for condition in re.findall(r'"Fn::If": \["(\w+)"', text):
        yield from parameters_in(TEMPLATE["Conditions"][condition])
    named = {*re.findall(r'"Ref": "(\w+)"', text), *re.findall(r"\$\{(\w+)\}", text)}
    yield from named & set(TEMPLATE["Parameters"])


def test_a_change_of_any_parameter_of_the_function_makes_a_new_version_of_it(transformed):
    of_function = {name: value for name, value in PROPERTIES.items() if name not in {*NOT_OF_A_VERSION, "Events"}}
    [version] = of_type(transformed, "AWS::Lambda::Version").values()
    assert set(parameters_in(version["Properties"]["Description"])) == set(parameters_in(of_function))


def test_a_parameter_that_is_no_part_of_a_version_makes_none():
    assert {"ReservedConcurrency", "Rollout"}.isdisjoint(parameters_in(PROPERTIES["VersionDescription"]))


def longest(name):
    """Return the length of the longest value of a parameter."""
    declared = TEMPLATE["Parameters"][name]
    values = declared.get("AllowedValues") or [declared.get("MaxValue", 36500)]
    return declared.get("MaxLength") or max(len(str(value)) for value in values)


def test_the_description_of_a_version_is_never_too_long():
    template = PROPERTIES["VersionDescription"]["Fn::Sub"]
    longer = re.sub(r"\$\{(\w+)\}", lambda match: "x" * longest(match[1]), template)
    assert len(longer) <= 256  # https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html


def test_a_change_of_the_code_or_of_a_property_makes_a_new_version(transformed):
    assert PROPERTIES["AutoPublishAliasAllProperties"] is True
    [alias] = of_type(transformed, "AWS::Lambda::Alias").values()
    [version] = of_type(transformed, "AWS::Lambda::Version")
    assert alias["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}


def test_requests_go_to_the_version_that_was_rolled_out(transformed):
    [alias] = of_type(transformed, "AWS::Lambda::Alias")
    [api] = of_type(transformed, "AWS::ApiGatewayV2::Api").values()
    for methods in api["Properties"]["Body"]["paths"].values():
        for described in methods.values():
            assert f"${{{alias}}}" in json.dumps(described["x-amazon-apigateway-integration"])
    permissions = of_type(transformed, "AWS::Lambda::Permission").values()
    assert len(permissions) == len(ROUTES) + 1
    assert all(permission["Properties"]["FunctionName"] == {"Ref": alias} for permission in permissions)


@pytest.mark.parametrize("rollout", TEMPLATE["Parameters"]["Rollout"]["AllowedValues"])
def test_a_rollout_is_one_that_codedeploy_has_and_alarms_end_a_gradual_one(rollout):
    [group] = of_type(deployed(Rollout=rollout), "AWS::CodeDeploy::DeploymentGroup").values()
    name, values = group["Properties"]["DeploymentConfigName"]["Fn::Sub"]
    assert (name, values) == ("CodeDeployDefault.Lambda${ConfigName}", {"ConfigName": rollout})
    condition, alarms, none = group["Properties"]["AlarmConfiguration"]["Fn::If"]
    assert (condition, alarms["Enabled"], none) == ("RolloutIsGradual", True, {})
    for alarm in alarms["Alarms"]:
        assert RESOURCES[alarm["Name"]["Ref"]]["Type"] == "AWS::CloudWatch::Alarm"
        assert "Condition" not in RESOURCES[alarm["Name"]["Ref"]]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["Properties"]["AutoRollbackConfiguration"]["Events"]


# What they may do


def test_roles_are_only_those_of_the_template(transformed):
    assert set(of_type(transformed, "AWS::IAM::Role")) == {*ROLES, "CodeDeployServiceRole"}


def test_no_role_has_a_policy_that_is_not_ours_but_where_it_is_for_a_service_without_resources():
    policies = {name: role["ManagedPolicyArns"] for name, role in ROLES.items() if "ManagedPolicyArns" in role}
    [(role, [condition, [policy], otherwise])] = [(name, policy["Fn::If"]) for name, policy in policies.items()]
    assert (role, condition, otherwise) == ("DestinationRole", "TracesAreSent", {"Ref": "AWS::NoValue"})
    assert policy["Fn::Sub"].endswith("/AWSXRayDaemonWriteAccess")


@pytest.mark.parametrize("role", ROLES)
def test_every_statement_of_a_role_names_one_resource(role):
    for statement in statements_of(role):
        assert not isinstance(statement["Resource"], list)
        assert "*" not in str(statement)


def test_the_endpoint_can_only_read_keys_and_tombstones_and_put_messages():
    stores = {pair for pair in granted("DestinationRole") if not pair[0].startswith("logs:")}
    assert stores == {
        ("dynamodb:GetItem", "KeyTable.Arn"),
        ("dynamodb:GetItem", "ErasureTable.Arn"),
        ("dynamodb:BatchGetItem", "ErasureTable.Arn"),
        ("dynamodb:PutItem", "EventTable.Arn"),
        ("dynamodb:PutItem", "RejectsTable.Arn"),
        ("sqs:SendMessage", "EventQueue.Arn"),
        ("sqs:SendMessage", "EventFifoQueue.Arn"),
        ("sqs:GetQueueAttributes", "EventQueue.Arn"),
        ("sqs:GetQueueAttributes", "EventFifoQueue.Arn"),
    }


def test_a_version_that_is_being_replaced_may_do_all_that_it_does():
    assert "Fn::If" not in json.dumps(ROLES["DestinationRole"]["Policies"])


def test_a_version_that_was_rolled_back_is_not_left_behind(transformed):
    [version] = of_type(transformed, "AWS::Lambda::Version").values()
    assert version["DeletionPolicy"] == "Delete"


@pytest.mark.parametrize("table", ["EventTable.Arn", "RejectsTable.Arn"])
def test_only_the_eraser_may_change_or_delete_what_is_stored(table):
    harmless = {"dynamodb:GetItem", "dynamodb:Query"}
    for role in ROLES:
        actions = {action for action, target in granted(role) if target == table} - harmless
        allowed = {"EraserRole": {"dynamodb:DeleteItem"}, "DestinationRole": {"dynamodb:PutItem"}}
        assert actions == allowed.get(role, set())


def test_no_role_has_an_action_that_has_no_resource():
    """IAM knows `ListStreams` for all streams of an account only: for one stream it grants nothing.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html
    """
    assert not [pair for role in ROLES for pair in granted(role) if pair[0] == "dynamodb:ListStreams"]


def test_nobody_may_change_keys():
    assert {pair for role in ROLES for pair in granted(role) if pair[1] == "KeyTable.Arn"} == {
        ("dynamodb:GetItem", "KeyTable.Arn")
    }


def test_the_consumers_may_write_contacts_and_nothing_else_of_ours():
    read = {"ReadStream", "TakeFromQueue", "TakeFromFifoQueue", "OpenLog", "WriteLog"}
    rest = {statement["Sid"]: names_in(statement) for statement in statements_of("ConsumerRole")}
    assert {sid: names for sid, names in rest.items() if sid not in read} == {
        "KeepContacts": {"ContactTable.Arn"},
        "SendFailuresToQueue": {"EventQueue.Arn", "EventFifoQueue.Arn"},
        "GiveUp": {"EventDeadLetterQueue.Arn"},
        "GiveUpInOrder": {"EventFifoDeadLetterQueue.Arn"},
        "SendDeadLetters": {"StreamDeadLetterQueue.Arn"},
    }


# What brings batches to them


@pytest.mark.parametrize("name", SOURCES)
def test_a_batch_comes_again_only_from_what_failed_in_it(name):
    assert SOURCES[name]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize(
    ("source", "function", "role", "dead_letters"),
    [
        ("EraserFunctionDeletes", "EraserFunction", "EraserRole", "ErasureDeadLetterQueue"),
        ("StreamConsumerFunctionStored", "StreamConsumerFunction", "ConsumerRole", "StreamDeadLetterQueue"),
    ],
)
def test_what_of_the_stream_is_given_up_goes_to_dead_letters(source, function, role, dead_letters):
    properties = SOURCES[source]["Properties"]
    assert properties["Stream"] == {"Fn::GetAtt": ["EventTable", "StreamArn"]}
    assert properties["StartingPosition"] == "TRIM_HORIZON"
    assert properties["BisectBatchOnFunctionError"] is True
    assert properties["MaximumRetryAttempts"] > 0
    assert properties["DestinationConfig"]["OnFailure"] == {"Destination": {"Fn::GetAtt": [dead_letters, "Arn"]}}
    assert FUNCTIONS[function]["Role"] == {"Fn::GetAtt": [role, "Arn"]}
    assert ("sqs:SendMessage", f"{dead_letters}.Arn") in granted(role)


def pattern_of(source):
    [criterion] = SOURCES[source]["Properties"]["FilterCriteria"]["Filters"]
    return json.loads(criterion["Pattern"])


def test_stored_messages_are_consumed_and_deletes_are_carried_out():
    stored = {"eventName": ["INSERT", "MODIFY"]}  # a MODIFY where the message replaced an expired one
    assert pattern_of("StreamConsumerFunctionStored") == stored
    delete = {"NewImage": {"type": {"S": [DELETE]}}}
    assert pattern_of("EraserFunctionDeletes") == {**stored, "dynamodb": delete}


@pytest.mark.parametrize("queue", ["EventQueue", "EventFifoQueue"])
def test_either_queue_is_consumed_with_six_times_the_time_of_the_function(queue):
    arn = {"Fn::GetAtt": [queue, "Arn"]}
    [source] = [source for source in SOURCES.values() if source["Properties"].get("Queue") == arn]
    assert source in FUNCTIONS["QueueConsumerFunction"]["Events"].values()
    assert QUEUES[queue]["VisibilityTimeout"] >= 6 * FUNCTIONS["QueueConsumerFunction"]["Timeout"]
    needed = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
    assert {action for action, target in granted("ConsumerRole") if target == f"{queue}.Arn"} >= needed


def test_the_eraser_may_send_to_the_queue_that_the_consumer_reads():
    [statement] = [one for one in statements_of("EraserRole") if one["Sid"] == "HandOverDeletes"]
    assert (statement["Action"], names_in(statement)) == ("sqs:SendMessage", {"EventQueue.Arn", "EventFifoQueue.Arn"})


def test_only_batches_of_deletes_that_wait_are_gathered():
    window = SOURCES["EraserFunctionDeletes"]["Properties"]["MaximumBatchingWindowInSeconds"]
    assert window == {"Fn::If": ["LateMessagesAreRefused", LATEST_WRITE_SECONDS, 0]}
    condition = load_template()["Conditions"]["LateMessagesAreRefused"]
    assert condition == {"Fn::Equals": [{"Ref": "AfterErasure"}, "refuse"]}


def test_shards_are_consumed_concurrently():
    assert SOURCES["StreamConsumerFunctionStored"]["Properties"]["ParallelizationFactor"] > 1


def test_a_queued_message_is_handed_over_alone():
    queues = [source for source in SOURCES.values() if "Queue" in source["Properties"]]
    assert [source["Properties"]["BatchSize"] for source in queues] == [1, 1]


def test_the_consumer_is_promised_the_tries_and_the_time_of_the_template():
    promises = " ".join(consumer.handle.__doc__.split())
    seconds = {name: FUNCTIONS[name]["Timeout"] for name in ("StreamConsumerFunction", "QueueConsumerFunction")}
    assert seconds == {"StreamConsumerFunction": 2 * MESSAGE_SECONDS, "QueueConsumerFunction": MESSAGE_SECONDS}
    assert f"{MESSAGE_SECONDS} seconds for each message" in promises
    assert f"{QUEUES['EventQueue']['RedrivePolicy']['maxReceiveCount']} times from a queue" in promises


# The endpoint


LIBRARIES_GIVE_UP_SECONDS = 10
"""Node's; Python's wait 15."""


def test_the_routes_are_those_of_the_code_with_payload_2_and_time_outs_below_those_of_who_calls(transformed):
    [api] = of_type(transformed, "AWS::ApiGatewayV2::Api").values()
    paths = api["Properties"]["Body"]["paths"]
    integrations = {
        f"{method.upper()} {path}": described["x-amazon-apigateway-integration"]
        for path, methods in paths.items()
        for method, described in methods.items()
    }
    assert set(integrations) == {*ROUTES, HEALTH}
    for route, integration in integrations.items():
        assert integration["payloadFormatVersion"] == "2.0"
        assert integration["timeoutInMillis"] == (4_900 if route in ("POST /segment", HEALTH) else 9_800)


EVENTS = {event["Properties"]["Path"]: event for event in FUNCTIONS[FUNCTION]["Events"].values()}


@pytest.mark.parametrize("route", ROUTES.values(), ids=lambda route: route.path)
def test_the_function_answers_by_itself_before_the_route_and_the_route_before_who_calls(route):
    event = EVENTS[route.path]
    route_seconds = event["Properties"]["TimeoutInMillis"] / 1000
    key_and_write_seconds = 2 * STORE_CALL_SECONDS
    they_give_up_seconds = LIBRARIES_GIVE_UP_SECONDS if isinstance(route, CallRoute) else SEGMENT_GIVES_UP_SECONDS
    assert key_and_write_seconds < route.answer_seconds < route_seconds < they_give_up_seconds
    assert route.answer_seconds > STORE_CALL_SECONDS + MAX_BACKOFF_SECONDS
    assert FUNCTIONS[FUNCTION]["Timeout"] > route_seconds


def test_every_route_is_throttled_and_health_more_than_others(transformed):
    [stage] = of_type(transformed, "AWS::ApiGatewayV2::Stage").values()
    settings = stage["Properties"]["DefaultRouteSettings"]
    limits = {"ThrottlingRateLimit": {"Ref": "RequestsPerSecond"}, "ThrottlingBurstLimit": {"Ref": "RequestBurst"}}
    assert settings == {**limits, "DetailedMetricsEnabled": True}
    routes = stage["Properties"]["RouteSettings"]
    assert routes.keys() == {HEALTH}
    assert routes[HEALTH]["ThrottlingRateLimit"] < TEMPLATE["Parameters"]["RequestsPerSecond"]["Default"]


def test_the_access_log_is_json():
    [api] = properties_of("AWS::Serverless::HttpApi").values()
    assert {"requestId", "status", "route", "integrationStatus"} <= json.loads(
        api["AccessLogSettings"]["Format"]
    ).keys()


def holds(condition, parameters):
    """Evaluate a condition of the template's rules."""
    match condition:
        case {"Fn::Not": [part]}:
            return not holds(part, parameters)
        case {"Fn::Equals": [{"Ref": name}, value]}:
            return parameters.get(name, TEMPLATE["Parameters"][name]["Default"]) == value
    raise AssertionError(condition)


def broken_rules(**parameters):
    """Return what CloudFormation says of parameters that the rules do not allow together."""
    return {
        assertion["AssertDescription"]
        for rule in TEMPLATE["Rules"].values()
        if holds(rule["RuleCondition"], parameters)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], parameters)
    }


DOMAIN, CERTIFICATE, ZONE = {"DomainName": "a.example"}, {"CertificateArn": "arn:…"}, {"HostedZoneId": "Z1"}


@pytest.mark.parametrize(
    ("parameters", "missing"),
    [
        ({}, set()),
        (DOMAIN | CERTIFICATE, set()),
        (DOMAIN | CERTIFICATE | ZONE, set()),
        (DOMAIN, {"CertificateArn"}),
        (DOMAIN | ZONE, {"CertificateArn"}),
        (CERTIFICATE, {"DomainName"}),
        (ZONE, {"DomainName"}),
        (CERTIFICATE | ZONE, {"DomainName"}),
    ],
    ids=lambda value: " ".join(sorted(value)) or "none",
)
def test_parameters_of_a_domain_that_would_have_no_effect_alone_are_refused(parameters, missing):
    told = broken_rules(**parameters)
    assert bool(told) is bool(missing)
    assert all(name in text for name in missing for text in told)


def test_metric_filters_tell_the_version_that_is_rolled_out(transformed):
    [version] = of_type(transformed, "AWS::Lambda::Version")
    patterns = {
        name: str(resource["Properties"]["FilterPattern"])
        for name, resource in of_type(transformed, "AWS::Logs::MetricFilter").items()
        if "Version" in name
    }
    assert len(patterns) == 4
    for name, pattern in patterns.items():
        sign = "=" if name.startswith("New") else "!="
        assert f'$.version {sign} "${{{version}.Version}}"' in pattern


def test_a_host_name_of_ones_own_takes_nothing_older_than_tls_1_2(transformed):
    [domain] = of_type(transformed, "AWS::ApiGatewayV2::DomainName").values()
    [configuration] = domain["Properties"]["DomainNameConfigurations"]
    assert configuration["SecurityPolicy"] == "TLS_1_2"
    [mapping] = of_type(transformed, "AWS::ApiGatewayV2::ApiMapping").values()
    [stage] = of_type(transformed, "AWS::ApiGatewayV2::Stage")
    assert (mapping["DependsOn"], mapping["Properties"]["Stage"]) == (stage, "$default")
    assert {resource["Condition"] for resource in (domain, mapping)} == {"DomainIsOwn"}


def test_without_parameters_there_is_no_host_name_and_nothing_reserved():
    defaults = {name: parameter["Default"] for name, parameter in TEMPLATE["Parameters"].items()}
    unset = {"DomainName": "", "CertificateArn": "", "HostedZoneId": "", "AlarmTopicArn": "", "ReservedConcurrency": 0}
    assert defaults.items() >= unset.items()


# The stages


STAGES = tomllib.loads((ROOT / "samconfig.toml").read_text())


def overrides(stage):
    text = STAGES[stage]["deploy"]["parameters"].get("parameter_overrides", "")
    return dict(pair.split("=", 1) for pair in text.split())


@pytest.mark.parametrize("stage", ["default", "staging", "prod"])
def test_a_stage_is_a_stack_of_its_own_with_parameters_of_the_template(stage):
    stacks = [settings["global"]["parameters"]["stack_name"] for name, settings in STAGES.items() if name != "version"]
    assert len(set(stacks)) == len(stacks)
    check_parameters(TEMPLATE["Parameters"], overrides(stage))
    assert STAGES[stage]["deploy"]["parameters"]["capabilities"] == "CAPABILITY_IAM"


def test_a_commit_alone_changes_no_resource():
    """CloudFormation hands the tags of a stack to its resources: one that changes updates them all."""
    makefile = (ROOT / "Makefile").read_text()
    [tags] = re.findall(r"^TAGS = (.+)$", makefile, re.MULTILINE)
    assert "$(STAGE)" in tags
    assert "$(shell" not in tags
    assert TEMPLATE["Outputs"]["Commit"]["Value"] in re.findall(
        r"sed -i\.original 's\|([\w-]+)\|\$\(COMMIT\)\|'", makefile
    )
    template = (ROOT / "template.yaml").read_text()
    assert template.count(TEMPLATE["Outputs"]["Commit"]["Value"]) == 1


def test_prod_is_rolled_out_by_a_canary_and_its_tables_are_protected():
    assert overrides("prod")["Rollout"].startswith("Canary")
    assert overrides("prod")["DeletionProtection"] == "on"


@pytest.mark.parametrize("stage", ["default", "staging", "prod"])
def test_every_stage_runs_on_arm64(stage):
    assert overrides(stage).get("Architecture", TEMPLATE["Parameters"]["Architecture"]["Default"]) == "arm64"


def test_the_api_accepts_what_the_parameter_pattern_promises():
    pattern = TEMPLATE["Parameters"]["SupportedCallTypes"]["AllowedPattern"]
    assert re.fullmatch(pattern, TEMPLATE["Parameters"]["SupportedCallTypes"]["Default"])
    assert not re.fullmatch(pattern, "identify,video")
