"""The files for Docker, Compose and Kubernetes, as far as they can be checked without either: what they name exists."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from deploy import prometheus_rule
from deploy.cli import app
from deploy.dashboards.__main__ import ALL, file_of, text_of
from deploy.scrape import RULES
from gateway import __main__ as gateway_main
from gateway import alerts, database, stream
from gateway.app import _routes
from schemas.settings import Settings, variable

DEPLOY = Path(__file__).parents[2] / "deploy"
VARIABLES = {variable(field.name) for field in fields(Settings)}
DEFAULTS = {variable(field.name): str(field.default) for field in fields(Settings)}
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS = [
    document
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]
ROLES = ("gateway", "streams", "sinks")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
IMAGE_ENV = dict(
    pair.split("=", 1)
    for line in DOCKERFILE.splitlines()
    if line.startswith("ENV ")
    for pair in shlex.split(line.removeprefix("ENV "))
)
OTHERS = {"PATH", "PYTHONUNBUFFERED"}
SPANS = "OTEL_EXPORTER_OTLP_ENDPOINT"


def named(kind: str, name: str) -> Any:
    return next(m for m in MANIFESTS if m["kind"] == kind and m["metadata"]["name"] == name)


def pods() -> Iterator[tuple[str, Any]]:
    """Role or job, and its pod's spec."""
    for manifest in MANIFESTS:
        if "template" in manifest.get("spec", {}):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def test_the_image_sets_variables_that_there_are_and_copies_what_exists() -> None:
    assert IMAGE_ENV.keys() - OTHERS <= VARIABLES
    copied = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    for source in [name for line in copied for name in line.split()[:-1]]:
        assert (DEPLOY.parent / source).exists(), source
    packages = {path.parent.name for path in DEPLOY.parent.glob("*/__init__.py")} - {"tests"}
    assert packages <= {line.split()[0] for line in copied}


def test_the_image_is_nobody_in_particular_and_listens_where_it_says() -> None:
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)
    exposed = re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    assert exposed is not None
    assert exposed[1].split() == [DEFAULTS["TILLSTREAM_GATEWAY_PORT"], IMAGE_ENV["TILLSTREAM_METRICS_PORT"]]
    assert 'ENTRYPOINT ["tillstream"]' in DOCKERFILE
    assert set(ROLES) <= COMMANDS


def test_the_image_has_what_its_files_may_ask_for_and_what_was_tested() -> None:
    """Exports in a bucket and spans are extras; without its package a role ends with 2 where they are asked for."""
    pinned = pins("deploy/requirements.txt")
    extras = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("s3", "tracing"):
        assert {re.split("[<>=]", package)[0] for package in extras[extra]} <= pinned.keys()
    assert pinned.items() <= pins("constraints.txt").items()
    assert COMPOSE["services"]["gateway"]["environment"][SPANS] == f"${{{SPANS}:-}}"


def pins(file: str) -> dict[str, str]:
    """Versions by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (DEPLOY.parent / file).read_text(), re.MULTILINE))


def test_compose_names_variables_commands_and_files_that_there_are() -> None:
    asked = re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text())
    example = dict(line.split("=") for line in (DEPLOY / "compose.env.example").read_text().splitlines()[1:])
    assert set(asked) == example.keys()
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), volume
        for needed in service.get("depends_on", {}):
            assert needed in COMPOSE["services"]
        if service["image"] == "tillstream":
            assert service["environment"].keys() <= VARIABLES | {SPANS}, name
        if name in ROLES:
            assert service["command"] == [name]


JOB = named("Job", "setup")["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("script", [COMPOSE["services"]["setup"]["command"][0], JOB["args"][0]])
def test_what_is_set_up_first_are_commands_that_there_are(script: str) -> None:
    for command in script.split(" && "):
        program, name, *more = command.split()
        assert (program, name in COMMANDS) == ("tillstream", True), command
        if more:
            assert set(more) <= set(typer.main.get_command(app).commands[name].commands)  # type: ignore[attr-defined]


def test_prometheus_scrapes_the_ports_that_compose_opens() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text())
    [job] = config["scrape_configs"]
    targets = {one["labels"]["role"]: one["targets"][0] for one in job["static_configs"]}
    metrics = IMAGE_ENV["TILLSTREAM_METRICS_PORT"]
    gateway = DEFAULTS["TILLSTREAM_GATEWAY_PORT"]
    assert targets == {"gateway": f"gateway:{gateway}", "streams": f"streams:{metrics}", "sinks": f"sinks:{metrics}"}
    assert (DEPLOY / "prometheus" / config["rule_files"][0]).exists()


def test_prometheus_may_see_tenants_names() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text())
    [secret] = COMPOSE["services"]["prometheus"]["secrets"]
    assert config["scrape_configs"][0]["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    assert COMPOSE["secrets"][secret] == {"environment": variable("admin_token")}
    [endpoint] = named("PodMonitor", "tillstream")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"]["key"] == variable("admin_token")


def test_composes_secrets_stay_out_of_git_and_the_image() -> None:
    for file, line in ((".gitignore", ".env"), (".dockerignore", "**/.env")):
        assert (DEPLOY.parent / file).read_text().splitlines()[-1] == line  # after what lets things in
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    assert ".env" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]


def test_strimzi_makes_the_user_and_a_release_makes_the_job_anew() -> None:
    assert named("KafkaUser", "tillstream")
    assert "userOperator" in named("Kafka", "kafka")["spec"]["entityOperator"]
    assert named("Job", "setup")["spec"]["ttlSecondsAfterFinished"] < 300


def test_every_manifest_is_listed_and_named_once() -> None:
    listed = kustomization("kubernetes")["resources"]
    files = {file.name for file in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(listed) == sorted(files | {"../grafana", "../prometheus"})
    names = [(m["kind"], m["metadata"]["name"]) for m in MANIFESTS if m["kind"] != "Kustomization"]
    assert len(names) == len(set(names))


def kustomization(folder: str) -> Any:
    return yaml.safe_load((DEPLOY / folder / "kustomization.yaml").read_text())


def test_the_cluster_gets_the_alerts_and_dashboards_that_there_are() -> None:
    assert prometheus_rule.FILE.read_text() == prometheus_rule.text_of(), "run: python -m deploy.prometheus_rule"
    assert yaml.safe_load(prometheus_rule.FILE.read_text())["spec"] == yaml.safe_load(RULES.read_text())
    assert kustomization("prometheus")["resources"] == [prometheus_rule.FILE.name]
    [dashboards] = kustomization("grafana")["configMapGenerator"]
    assert {DEPLOY / "grafana" / file for file in dashboards["files"]} == {file_of(dashboard) for dashboard in ALL}
    assert dashboards["options"]["labels"] == {"grafana_dashboard": "1"}


@pytest.fixture(scope="module")
def applied() -> list[Any]:
    """What `kubectl apply -k deploy/kubernetes` sends to a cluster."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine")
    done = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_sends_everything_and_what_the_operators_look_for(applied: list[Any]) -> None:
    sent = {(m["kind"], m["metadata"]["name"]): m for m in applied}
    ours = {(m["kind"], m["metadata"]["name"]) for m in MANIFESTS if m["kind"] != "Kustomization"}
    assert sent.keys() == ours | {("PrometheusRule", "tillstream"), ("ConfigMap", "tillstream-dashboards")}
    dashboards = sent["ConfigMap", "tillstream-dashboards"]
    assert dashboards["data"] == {file_of(each).name: text_of(each) for each in ALL}
    assert len(json.dumps(dashboards)) < 262_144, "kubectl keeps what it applied in an annotation, which has this bound"
    for kind in ("PrometheusRule", "PodMonitor"):
        assert sent[kind, "tillstream"]["metadata"]["labels"] == {"release": "kube-prometheus-stack"}
    assert sent["PrometheusRule", "tillstream"]["spec"] == yaml.safe_load(RULES.read_text())


def test_pods_get_variables_that_there_are_and_listen_where_they_are_probed() -> None:
    assert named("ConfigMap", "tillstream")["data"].keys() <= VARIABLES
    seen = set()
    for name, pod in pods():
        seen.add(name)
        [container] = pod["containers"]
        # The Pod Security Standard "restricted".
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert pod["automountServiceAccountToken"] is False
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert {one["name"] for one in container.get("env", ())} <= VARIABLES
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        if name not in ROLES:
            continue
        assert container["args"] == [name]
        [port] = container["ports"]
        metrics, gateway = IMAGE_ENV["TILLSTREAM_METRICS_PORT"], DEFAULTS["TILLSTREAM_GATEWAY_PORT"]
        assert str(port["containerPort"]) == (gateway if name == "gateway" else metrics)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                assert container[probe]["httpGet"]["port"] == port["name"]
                assert container[probe]["httpGet"]["path"] in ("/healthz", "/readyz", "/metrics")
    assert seen == {*ROLES, "setup"}


def test_each_role_may_lose_one_pod_at_a_time_and_is_scaled() -> None:
    for role in ROLES:
        budget = named("PodDisruptionBudget", role)["spec"]
        assert budget["selector"]["matchLabels"] == {"app": role}
    scaled = {m["spec"]["scaleTargetRef"]["name"] for m in MANIFESTS if "scaleTargetRef" in m.get("spec", {})}
    assert scaled == set(ROLES)
    for manifest in MANIFESTS:
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            assert "replicas" not in manifest["spec"], "an apply would undo what the autoscaler did"
        elif "scaleTargetRef" in manifest.get("spec", {}):
            assert {manifest["spec"].get("minReplicas"), manifest["spec"].get("minReplicaCount")} == {2, None}
    catalogue = (DEPLOY.parent / "schemas" / "metrics.py").read_text()
    queries = [t["metadata"]["query"] for m in MANIFESTS if m["kind"] == "ScaledObject" for t in m["spec"]["triggers"]]
    assert len(queries) == 2
    for query in queries:
        [metric] = re.findall(r"tillstream_\w+", query)
        assert f'"{metric}"' in catalogue


def test_a_gateway_must_reach_kafka_to_begin_but_not_to_go_on_and_leaves_in_good_time() -> None:
    pod = named("Deployment", "gateway")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    probed = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    assert probed == {"startup": "/readyz", "readiness": "/healthz", "liveness": "/healthz"}
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert int(seconds) + gateway_main.GRACE_S < pod["terminationGracePeriodSeconds"]


def test_postgresql_has_a_connection_for_everybody() -> None:
    a_gateway, a_sink = database._CONNECTIONS + stream.MAX_STREAMS, len(("rows", "days", "exports", "an export"))
    gateways = named("HorizontalPodAutoscaler", "gateway")["spec"]["maxReplicas"]
    sinks = named("ScaledObject", "sinks")["spec"]["maxReplicaCount"]
    there_are = int(named("Cluster", "postgresql")["spec"]["postgresql"]["parameters"]["max_connections"])
    # A rolling update begins a quarter more before it ends what is there (maxSurge).
    assert 1.25 * (gateways * a_gateway + sinks * a_sink) < there_are


def test_no_more_workers_than_partitions() -> None:
    partitions = int(named("ConfigMap", "tillstream")["data"]["TILLSTREAM_PARTITIONS"])
    assert named("ScaledObject", "streams")["spec"]["maxReplicaCount"] <= partitions


def test_keda_asks_where_prometheus_is_by_default_and_it_is_said_once(applied: list[Any]) -> None:
    asked = [m["spec"]["triggers"][0]["metadata"]["serverAddress"] for m in applied if m["kind"] == "ScaledObject"]
    assert asked == ["http://prometheus-operated.monitoring.svc:9090"] * 2
    said = [file for file in (DEPLOY / "kubernetes").rglob("*.yaml") if "prometheus-operated" in file.read_text()]
    assert said == [DEPLOY / "kubernetes" / "kustomization.yaml"]


def test_what_stands_before_gateways_lets_through_what_they_serve() -> None:
    [ingress] = yaml.safe_load_all((DEPLOY / "kubernetes" / "edge" / "ingress.yaml").read_text())
    [route] = yaml.safe_load_all((DEPLOY / "kubernetes" / "edge" / "route.yaml").read_text())
    [port] = named("Service", "gateway")["spec"]["ports"]
    said = {name.partition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert said["proxy-body-size"] == "0"
    assert said["proxy-request-buffering"] == said["proxy-buffering"] == "off"
    assert int(said["proxy-read-timeout"]) > alerts.HEARTBEAT_S
    [rule], [tls] = ingress["spec"]["rules"], ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]] == route["spec"]["hostnames"]
    backends = [path["backend"]["service"] for path in rule["http"]["paths"]]
    assert backends == [{"name": "gateway", "port": {"name": port["name"]}}] * 2
    [passed] = route["spec"]["rules"]
    assert passed["backendRefs"] == [{"name": "gateway", "port": port["port"]}]
    assert passed["timeouts"] == {"request": "0s"}
    inside = {path["path"] for path in rule["http"]["paths"]}
    assert inside == {match["path"]["value"] for match in passed["matches"]}
    shut = {"/healthz", "/readyz", "/metrics"}
    served = {route.path for route in _routes()} - shut - {path + "/" for path in shut}
    assert all(any(path == one or path.startswith(f"{one}/") for one in inside) for path in served)
