"""Test template.yaml, before and after the SAM transformation that CloudFormation applies to it."""

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
from destination.deployment.stack import FUNCTION, STORE_TYPES, check_parameters, load_template
from destination.paths import ROOT
from handler.routes import HEALTH, ROUTES, CallRoute
from handler.settings import MAX_BACKOFF_SECONDS, STORE_CALL_SECONDS, Settings
from handler.sinks import SINKS, sink_named
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
"""Resource types that deliver batches to functions."""


def statements_of(role):
    """Return the statements of a role, including both branches of a condition."""
    for policy in ROLES[role]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            branches = statement["Fn::If"][1:] if "Fn::If" in statement else [statement]
            yield from (branch for branch in branches if branch != {"Ref": "AWS::NoValue"})


def names_in(statement):
    """Return the stores, logs or streams that a statement is about, such as `EventTable.Arn`."""
    resource = statement["Resource"]
    branches = resource["Fn::If"][1:] if "Fn::If" in resource else [resource]
    return {branch["Fn::Sub"] if "Fn::Sub" in branch else ".".join(branch["Fn::GetAtt"]) for branch in branches}


def granted(role):
    """Return the permissions of a role, as pairs of action and resource."""
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
    """Return the resources after the SAM transformation."""
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
    """Yield the resources that a part of the transformed template refers to, with any attribute."""
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


def test_resources_have_no_circular_dependency(transformed):
    """A rollout alarm that names the API would be circular: API -> alias -> its rollout -> alarm -> API."""
    waits_for = {name: set(named_in(resource)) & transformed.keys() for name, resource in transformed.items()}
    assert len(list(TopologicalSorter(waits_for).static_order())) == len(transformed)


@pytest.mark.parametrize("name", STORES)
def test_stores_survive_the_stack_and_a_change_of_the_sink(name):
    # The stores of a failed first deployment are empty.
    policies = [STORES[name][policy] for policy in ("UpdateReplacePolicy", "DeletionPolicy")]
    assert policies == ["Retain", "RetainExceptOnCreate"]
    assert "Condition" not in STORES[name]


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_on_demand_encrypted_and_backed_up(name):
    assert TABLES[name]["BillingMode"] == "PAY_PER_REQUEST"
    assert TABLES[name]["SSESpecification"] == {"SSEEnabled": True}
    assert TABLES[name]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert TABLES[name]["DeletionProtectionEnabled"] == {"Fn::If": ["TablesAreProtected", True, False]}


@pytest.mark.parametrize("name", QUEUES)
def test_queues_are_encrypted_and_accept_the_largest_message(name):
    assert QUEUES[name]["SqsManagedSseEnabled"] is True
    assert QUEUES[name]["MaximumMessageSize"] == 1024 * 1024


@pytest.mark.parametrize(
    ("queue", "dead_letters"),
    [("EventQueue", "EventDeadLetterQueue"), ("EventFifoQueue", "EventFifoDeadLetterQueue")],
)
def test_dead_letter_queue_has_the_type_of_its_queue(queue, dead_letters):
    assert QUEUES[queue]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead_letters, "Arn"]}
    assert QUEUES[queue].get("FifoQueue") == QUEUES[dead_letters].get("FifoQueue")


def test_the_event_table_streams_new_items():
    assert TABLES["EventTable"]["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_resources_have_no_physical_names():
    names = {"TableName", "QueueName", "FunctionName", "RoleName", "AlarmName", "DashboardName", "FilterName", "Name"}
    named = [name for name, resource in RESOURCES.items() if names & set(resource["Properties"])]
    assert named == ["DomainRecord"]
    assert not [name for name, log in properties_of("AWS::Logs::LogGroup").items() if "LogGroupName" in log]


@pytest.mark.parametrize("name", TEMPLATE["Parameters"])
def test_parameters_have_a_description_and_a_default(name):
    assert TEMPLATE["Parameters"][name]["Description"]
    assert "Default" in TEMPLATE["Parameters"][name]


# The functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_functions_share_one_artifact_and_runtime(name):
    assert RESOURCES[name]["Metadata"] == {"BuildMethod": "makefile"}
    alike = ("CodeUri", "Runtime", "Architectures")
    assert [FUNCTIONS[name][part] for part in alike] == [FUNCTIONS[FUNCTION][part] for part in alike]
    assert f"build-{name}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_handlers_exist(name):
    module, _, function = FUNCTIONS[name]["Handler"].rpartition(".")
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert f"\ndef {function}(" in source.read_text()


def test_variables_and_settings_correspond():
    environment = FUNCTIONS[FUNCTION]["Environment"]["Variables"]
    read_by_boto3 = {"AWS_ENDPOINT_URL"}
    derived_from_it = {"ACCEPT_DEMO_KEYS"}
    set_by_lambda = {"AWS_LAMBDA_FUNCTION_VERSION"}
    by_sink = {sink_named(name).variable for name in SINKS}
    settings = {name.upper() for name in Settings.__dataclass_fields__} - {"EVENT_STORE"} | by_sink
    assert set(environment) - read_by_boto3 == settings - derived_from_it - set_by_lambda


def test_parameter_allows_every_sink():
    parameter = TEMPLATE["Parameters"]["EventSink"]
    assert parameter["AllowedValues"] == list(SINKS), "EventSink in template.yaml and SINKS must have the same sinks"
    assert parameter["Default"] == next(iter(SINKS))


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("EraserFunction", ["eraser"]),
        ("StreamConsumerFunction", ["stream", "runtime/forward", "handle"]),
        ("QueueConsumerFunction", ["queue", "runtime/forward", "handle"]),
    ],
)
def test_background_function_has_the_variables_that_it_reads(name, readers):
    code = "".join((ROOT / "consumer" / f"{reader}.py").read_text() for reader in readers)
    read = re.findall(r'os\.environ\["(\w+)"\]', code)
    read_by_libraries = {"AWS_ENDPOINT_URL", "POWERTOOLS_SERVICE_NAME"}
    assert set(FUNCTIONS[name]["Environment"]["Variables"]) == {*read, *read_by_libraries}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_log_where_their_roles_may_write(name, transformed):
    [log] = transformed[name]["Properties"]["LoggingConfig"].values()
    [role, _arn] = transformed[name]["Properties"]["Role"]["Fn::GetAtt"]
    written = {(action, target) for action, target in granted(role) if action.startswith("logs:")}
    assert written == {(action, f"{log['Ref']}.Arn") for action in ("logs:CreateLogStream", "logs:PutLogEvents")}


def test_every_log_has_a_retention():
    for log in properties_of("AWS::Logs::LogGroup").values():
        assert log["RetentionInDays"] == {"Ref": "LogRetentionDays"}


# A new version of the function


PROPERTIES = FUNCTIONS[FUNCTION]
NOT_OF_A_VERSION = {"AutoPublishAlias", "VersionDescription", "DeploymentPreference", "ReservedConcurrentExecutions"}
"""Properties that say how the function is deployed. They are not part of a version."""


def parameters_in(value):
    """Return the parameters that a value depends on, including those in its conditions."""
    text = json.dumps(value)
    for condition in re.findall(r'"Fn::If": \["(\w+)"', text):
        yield from parameters_in(TEMPLATE["Conditions"][condition])
    named = {*re.findall(r'"Ref": "(\w+)"', text), *re.findall(r"\$\{(\w+)\}", text)}
    yield from named & set(TEMPLATE["Parameters"])


def test_every_parameter_belongs_to_a_group():
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert set(grouped) == set(TEMPLATE["Parameters"]), "ParameterGroups in template.yaml must have each parameter"
    assert len(grouped) == len(set(grouped))


def test_changing_a_function_parameter_publishes_a_version(transformed):
    of_function = {name: value for name, value in PROPERTIES.items() if name not in {*NOT_OF_A_VERSION, "Events"}}
    [version] = of_type(transformed, "AWS::Lambda::Version").values()
    described, used = set(parameters_in(version["Properties"]["Description"])), set(parameters_in(of_function))
    assert described == used, f"VersionDescription must name {used - described}, and not {described - used}"


def test_other_parameters_publish_no_version():
    assert {"ReservedConcurrency", "Rollout"}.isdisjoint(parameters_in(PROPERTIES["VersionDescription"]))


def longest(name):
    """Return the maximum length of a parameter's value."""
    declared = TEMPLATE["Parameters"][name]
    values = declared.get("AllowedValues") or [declared.get("MaxValue", 36500)]
    return declared.get("MaxLength") or max(len(str(value)) for value in values)


def test_version_description_is_never_too_long():
    template = PROPERTIES["VersionDescription"]["Fn::Sub"]
    longer = re.sub(r"\$\{(\w+)\}", lambda match: "x" * longest(match[1]), template)
    assert len(longer) <= 256  # https://docs.aws.amazon.com/lambda/latest/api/API_PublishVersion.html


def test_changing_code_or_a_property_publishes_a_version(transformed):
    assert PROPERTIES["AutoPublishAliasAllProperties"] is True
    [alias] = of_type(transformed, "AWS::Lambda::Alias").values()
    [version] = of_type(transformed, "AWS::Lambda::Version")
    assert alias["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}


def test_requests_go_to_the_alias_of_the_rollout(transformed):
    [alias] = of_type(transformed, "AWS::Lambda::Alias")
    [api] = of_type(transformed, "AWS::ApiGatewayV2::Api").values()
    for methods in api["Properties"]["Body"]["paths"].values():
        for described in methods.values():
            assert f"${{{alias}}}" in json.dumps(described["x-amazon-apigateway-integration"])
    permissions = of_type(transformed, "AWS::Lambda::Permission").values()
    assert len(permissions) == len(ROUTES) + 1
    assert all(permission["Properties"]["FunctionName"] == {"Ref": alias} for permission in permissions)


@pytest.mark.parametrize("rollout", TEMPLATE["Parameters"]["Rollout"]["AllowedValues"])
def test_rollout_type_exists_and_alarms_stop_gradual_rollouts(rollout):
    [group] = of_type(deployed(Rollout=rollout), "AWS::CodeDeploy::DeploymentGroup").values()
    name, values = group["Properties"]["DeploymentConfigName"]["Fn::Sub"]
    assert (name, values) == ("CodeDeployDefault.Lambda${ConfigName}", {"ConfigName": rollout})
    condition, alarms, none = group["Properties"]["AlarmConfiguration"]["Fn::If"]
    assert (condition, alarms["Enabled"], none) == ("RolloutIsGradual", True, {})
    for alarm in alarms["Alarms"]:
        assert RESOURCES[alarm["Name"]["Ref"]]["Type"] == "AWS::CloudWatch::Alarm"
        assert "Condition" not in RESOURCES[alarm["Name"]["Ref"]]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["Properties"]["AutoRollbackConfiguration"]["Events"]


# Permissions


def test_every_role_is_declared_in_the_template(transformed):
    assert set(of_type(transformed, "AWS::IAM::Role")) == {*ROLES, "CodeDeployServiceRole"}


def test_roles_have_no_managed_policy_except_for_tracing():
    policies = {name: role["ManagedPolicyArns"] for name, role in ROLES.items() if "ManagedPolicyArns" in role}
    [(role, [condition, [policy], otherwise])] = [(name, policy["Fn::If"]) for name, policy in policies.items()]
    assert (role, condition, otherwise) == ("DestinationRole", "TracesAreSent", {"Ref": "AWS::NoValue"})
    assert policy["Fn::Sub"].endswith("/AWSXRayDaemonWriteAccess")


@pytest.mark.parametrize("role", ROLES)
def test_every_statement_names_one_resource(role):
    for statement in statements_of(role):
        assert not isinstance(statement["Resource"], list)
        assert "*" not in str(statement)


def test_endpoint_may_only_read_keys_and_tombstones_and_put_messages():
    stores = {pair for pair in granted("DestinationRole") if not pair[0].startswith("logs:")}
    assert {(action, name) for action, name in stores if "Get" in action} == {
        ("dynamodb:GetItem", "KeyTable.Arn"),
        ("dynamodb:GetItem", "ErasureTable.Arn"),
        ("dynamodb:BatchGetItem", "ErasureTable.Arn"),
        ("sqs:GetQueueAttributes", "EventQueue.Arn"),
        ("sqs:GetQueueAttributes", "EventFifoQueue.Arn"),
    }
    others = {(action, name) for action, name in stores if "Get" not in action}
    puts = {(action, name) for action, name in others if re.fullmatch(r"\w+:(Put|Send|Describe)\w+", action)}
    assert others == puts, "The endpoint may put messages and describe a store, and nothing else"
    assert {name for action, name in puts if action.startswith("dynamodb:")} == {"EventTable.Arn", "RejectsTable.Arn"}


def test_permissions_of_the_endpoint_do_not_depend_on_parameters():
    assert "Fn::If" not in json.dumps(ROLES["DestinationRole"]["Policies"])


def test_rolled_back_version_is_deleted(transformed):
    [version] = of_type(transformed, "AWS::Lambda::Version").values()
    assert version["DeletionPolicy"] == "Delete"


@pytest.mark.parametrize("table", ["EventTable.Arn", "RejectsTable.Arn"])
def test_only_the_eraser_may_change_or_delete_messages(table):
    harmless = {"dynamodb:GetItem", "dynamodb:Query"}
    for role in ROLES:
        actions = {action for action, target in granted(role) if target == table} - harmless
        allowed = {"EraserRole": {"dynamodb:DeleteItem"}, "DestinationRole": {"dynamodb:PutItem"}}
        assert actions == allowed.get(role, set())


def test_roles_have_no_action_without_a_resource():
    """IAM knows `ListStreams` only for all streams of an account.

    For a single stream it grants nothing.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html
    """
    assert not [pair for role in ROLES for pair in granted(role) if pair[0] == "dynamodb:ListStreams"]


def test_no_function_may_change_keys():
    assert {pair for role in ROLES for pair in granted(role) if pair[1] == "KeyTable.Arn"} == {
        ("dynamodb:GetItem", "KeyTable.Arn")
    }


def test_consumers_may_write_only_contacts():
    read = {"ReadStream", "TakeFromQueue", "TakeFromFifoQueue", "OpenLog", "WriteLog"}
    rest = {statement["Sid"]: names_in(statement) for statement in statements_of("ConsumerRole")}
    assert {sid: names for sid, names in rest.items() if sid not in read} == {
        "KeepContacts": {"ContactTable.Arn"},
        "SendFailuresToQueue": {"EventQueue.Arn", "EventFifoQueue.Arn"},
        "GiveUp": {"EventDeadLetterQueue.Arn"},
        "GiveUpInOrder": {"EventFifoDeadLetterQueue.Arn"},
        "SendDeadLetters": {"StreamDeadLetterQueue.Arn"},
    }


# Event sources


@pytest.mark.parametrize("name", SOURCES)
def test_only_failed_records_of_a_batch_are_retried(name):
    assert SOURCES[name]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize(
    ("source", "function", "role", "dead_letters"),
    [
        ("EraserFunctionDeletes", "EraserFunction", "EraserRole", "ErasureDeadLetterQueue"),
        ("StreamConsumerFunctionStored", "StreamConsumerFunction", "ConsumerRole", "StreamDeadLetterQueue"),
    ],
)
def test_discarded_stream_records_go_to_dead_letter_queues(source, function, role, dead_letters):
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
    stored = {"eventName": ["INSERT", "MODIFY"]}  # a MODIFY if the message replaced an expired one
    assert pattern_of("StreamConsumerFunctionStored") == stored
    delete = {"NewImage": {"type": {"S": [DELETE]}}}
    assert pattern_of("EraserFunctionDeletes") == {**stored, "dynamodb": delete}


@pytest.mark.parametrize("queue", ["EventQueue", "EventFifoQueue"])
def test_visibility_time_out_is_six_times_the_function_time_out(queue):
    arn = {"Fn::GetAtt": [queue, "Arn"]}
    [source] = [source for source in SOURCES.values() if source["Properties"].get("Queue") == arn]
    assert source in FUNCTIONS["QueueConsumerFunction"]["Events"].values()
    assert QUEUES[queue]["VisibilityTimeout"] >= 6 * FUNCTIONS["QueueConsumerFunction"]["Timeout"]
    needed = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
    assert {action for action, target in granted("ConsumerRole") if target == f"{queue}.Arn"} >= needed


def test_the_eraser_may_send_to_the_queue_that_the_consumer_reads():
    [statement] = [one for one in statements_of("EraserRole") if one["Sid"] == "HandOverDeletes"]
    assert (statement["Action"], names_in(statement)) == ("sqs:SendMessage", {"EventQueue.Arn", "EventFifoQueue.Arn"})


def test_deletes_are_gathered_only_if_late_messages_are_refused():
    window = SOURCES["EraserFunctionDeletes"]["Properties"]["MaximumBatchingWindowInSeconds"]
    assert window == {"Fn::If": ["LateMessagesAreRefused", LATEST_WRITE_SECONDS, 0]}
    condition = load_template()["Conditions"]["LateMessagesAreRefused"]
    assert condition == {"Fn::Equals": [{"Ref": "AfterErasure"}, "refuse"]}


def test_shards_are_consumed_concurrently():
    assert SOURCES["StreamConsumerFunctionStored"]["Properties"]["ParallelizationFactor"] > 1


def test_queued_messages_are_handled_one_by_one():
    queues = [source for source in SOURCES.values() if "Queue" in source["Properties"]]
    assert [source["Properties"]["BatchSize"] for source in queues] == [1, 1]


def test_consumer_knows_the_retries_and_time_out_of_the_template():
    promises = " ".join(consumer.handle.__doc__.split())
    seconds = {name: FUNCTIONS[name]["Timeout"] for name in ("StreamConsumerFunction", "QueueConsumerFunction")}
    assert seconds == {"StreamConsumerFunction": 2 * MESSAGE_SECONDS, "QueueConsumerFunction": MESSAGE_SECONDS}
    assert f"{MESSAGE_SECONDS} seconds for each message" in promises
    assert f"{QUEUES['EventQueue']['RedrivePolicy']['maxReceiveCount']} times from a queue" in promises


# The endpoint


LIBRARIES_GIVE_UP_SECONDS = 10
"""Node's. Python's libraries wait 15 s."""


def test_routes_match_the_code_and_end_before_their_callers_give_up(transformed):
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
def test_time_outs_grow_from_function_to_route_to_caller(route):
    event = EVENTS[route.path]
    route_seconds = event["Properties"]["TimeoutInMillis"] / 1000
    key_and_write_seconds = 2 * STORE_CALL_SECONDS
    they_give_up_seconds = LIBRARIES_GIVE_UP_SECONDS if isinstance(route, CallRoute) else SEGMENT_GIVES_UP_SECONDS
    assert key_and_write_seconds < route.answer_seconds < route_seconds < they_give_up_seconds
    assert route.answer_seconds > STORE_CALL_SECONDS + MAX_BACKOFF_SECONDS
    assert FUNCTIONS[FUNCTION]["Timeout"] > route_seconds


def test_every_route_is_throttled_and_health_most(transformed):
    [stage] = of_type(transformed, "AWS::ApiGatewayV2::Stage").values()
    settings = stage["Properties"]["DefaultRouteSettings"]
    limits = {"ThrottlingRateLimit": {"Ref": "RequestsPerSecond"}, "ThrottlingBurstLimit": {"Ref": "RequestBurst"}}
    assert settings == {**limits, "DetailedMetricsEnabled": True}
    routes = stage["Properties"]["RouteSettings"]
    assert routes.keys() == {HEALTH}
    assert routes[HEALTH]["ThrottlingRateLimit"] < TEMPLATE["Parameters"]["RequestsPerSecond"]["Default"]


def test_access_log_is_json():
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
    """Return the messages of the rules that these parameters break."""
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
def test_incomplete_domain_parameters_are_refused(parameters, missing):
    told = broken_rules(**parameters)
    assert bool(told) is bool(missing)
    assert all(name in text for name in missing for text in told)


def test_metric_filters_distinguish_the_new_version(transformed):
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


def test_custom_domain_needs_tls_1_2(transformed):
    [domain] = of_type(transformed, "AWS::ApiGatewayV2::DomainName").values()
    [configuration] = domain["Properties"]["DomainNameConfigurations"]
    assert configuration["SecurityPolicy"] == "TLS_1_2"
    [mapping] = of_type(transformed, "AWS::ApiGatewayV2::ApiMapping").values()
    [stage] = of_type(transformed, "AWS::ApiGatewayV2::Stage")
    assert (mapping["DependsOn"], mapping["Properties"]["Stage"]) == (stage, "$default")
    assert {resource["Condition"] for resource in (domain, mapping)} == {"DomainIsOwn"}


def test_default_has_no_domain_and_no_reserved_concurrency():
    defaults = {name: parameter["Default"] for name, parameter in TEMPLATE["Parameters"].items()}
    unset = {"DomainName": "", "CertificateArn": "", "HostedZoneId": "", "AlarmTopicArn": "", "ReservedConcurrency": 0}
    assert defaults.items() >= unset.items()


# The stages


STAGES = tomllib.loads((ROOT / "samconfig.toml").read_text())


def overrides(stage):
    text = STAGES[stage]["deploy"]["parameters"].get("parameter_overrides", "")
    return dict(pair.split("=", 1) for pair in text.split())


@pytest.mark.parametrize("stage", ["default", "staging", "prod"])
def test_each_stage_is_a_stack_with_known_parameters(stage):
    stacks = [settings["global"]["parameters"]["stack_name"] for name, settings in STAGES.items() if name != "version"]
    assert len(set(stacks)) == len(stacks)
    check_parameters(TEMPLATE["Parameters"], overrides(stage))
    assert STAGES[stage]["deploy"]["parameters"]["capabilities"] == "CAPABILITY_IAM"


def test_new_commit_alone_changes_no_resource():
    """CloudFormation copies the tags of a stack to its resources: a tag with the commit would update them all."""
    makefile = (ROOT / "Makefile").read_text()
    [tags] = re.findall(r"^TAGS = (.+)$", makefile, re.MULTILINE)
    assert "$(STAGE)" in tags
    assert "$(shell" not in tags
    assert TEMPLATE["Outputs"]["Commit"]["Value"] in re.findall(
        r"sed -i\.original 's\|([\w-]+)\|\$\(COMMIT\)\|'", makefile
    )
    template = (ROOT / "template.yaml").read_text()
    assert template.count(TEMPLATE["Outputs"]["Commit"]["Value"]) == 1


def test_prod_has_canary_rollouts_and_protected_tables():
    assert overrides("prod")["Rollout"].startswith("Canary")
    assert overrides("prod")["DeletionProtection"] == "on"


@pytest.mark.parametrize("stage", ["default", "staging", "prod"])
def test_every_stage_runs_on_arm64(stage):
    assert overrides(stage).get("Architecture", TEMPLATE["Parameters"]["Architecture"]["Default"]) == "arm64"


def test_api_accepts_every_value_of_the_parameter_pattern():
    pattern = TEMPLATE["Parameters"]["SupportedCallTypes"]["AllowedPattern"]
    assert re.fullmatch(pattern, TEMPLATE["Parameters"]["SupportedCallTypes"]["Default"])
    assert not re.fullmatch(pattern, "identify,video")
