"""TLS and SASL/SCRAM to Kafka, TLS to PostgreSQL: every process and command, and who is not let in."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import confluent_kafka
import psycopg
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pipeline import READER_PASSWORD, Pipeline
from test_end_to_end import order
from tls import encrypted

from deploy import credentials
from deploy.broker import HOST, Broker, Security
from deploy.database import Database
from deploy.stack import create_database
from deploy.supervisor import Child, Supervisor
from schemas.errors import Misconfigured
from schemas.settings import Settings
from sinks.migrate import migrate

USER, PASSWORD = "tillstream", "only-for-this-test"
LOGIN = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{USER}" password="{PASSWORD}";'
BROKER = """
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
security.inter.broker.protocol=SASL_SSL
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={login}
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings for a broker that takes SASL_SSL alone, and a database whose certificate is to be verified."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    server = authority.issue_cert(HOST, "localhost")
    key = load_pem_private_key(server.private_key_pem.bytes(), None)
    chain = b"".join(certificate.bytes() for certificate in server.cert_chain_pems)
    # Java reads a key as PKCS #8 alone.
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "keystore.pem").write_bytes(pem + chain)
    settings = replace(
        Settings.from_env(),
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username=USER,
        kafka_sasl_password=PASSWORD,
        kafka_ssl_ca_file=str(folder / "authority.pem"),
    )
    client = {name: value for name, value in settings.kafka.items() if name != "bootstrap.servers"}
    properties = BROKER.format(login=LOGIN, keystore=folder / "keystore.pem", authority=settings.kafka_ssl_ca_file)
    scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
    security = Security("SASL_SSL", properties, ("--add-scram", scram), client)
    broker, database = Broker(folder / "kafka", security=security), Database(folder / "postgresql")
    with Supervisor() as supervisor:
        for store in (broker, database):
            child = Child(store.name, store.command, folder / f"{store.name}.log", user=store.popen_user,
                          stop_signal=store.stop_signal, stop_within=store.stop_within)  # fmt: skip
            store.wait_ready(supervisor.add(child).alive)
        url = create_database(database.url, "tillstream")
        migrate(url)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.configure_cert(context)
        with encrypted(url, context) as tls:
            verified = f"{tls.url}?sslmode=verify-full&sslrootcert={settings.kafka_ssl_ca_file}"
            yield replace(
                settings,
                kafka_bootstrap_servers=broker.bootstrap_servers,
                database_url=verified,
                reader_database_url=credentials.reader_login(verified, READER_PASSWORD),
            )


@pytest.fixture(scope="module")
def pipeline(secured: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """All processes on those stores."""
    names = [name for name in Settings.__slots__ if name.startswith("kafka_")] + ["database_url", "reader_database_url"]
    with Pipeline(tmp_path_factory.mktemp("pipeline"), **{name: getattr(secured, name) for name in names}) as own:
        own.start("streams", "sinks", "gateway")
        yield own


def test_orders_stock_and_prices_go_all_the_way(pipeline: Pipeline) -> None:
    tenant, key = pipeline.tenant()
    base, headers = f"/api/v1/tenants/{tenant}", {"X-API-Key": key, "Content-Type": "application/x-ndjson"}
    assert pipeline.post(tenant, key, "orders", order(1)).status_code == 202
    moved = {"product_id": "P", "kind": "received", "quantity": 5}
    said = pipeline.http.post(f"{base}/stock-events?wait=20s", content=json.dumps(moved), headers=headers)
    assert [json.loads(line).get("outcome") for line in said.text.splitlines()][1] == "applied"
    priced = {"new_price": "3.00", "source": "erp"}
    judged = pipeline.http.post(
        f"{base}/products/P/price-event", json=priced, headers={"X-API-Key": key, "Accept": "application/x-ndjson"}
    )
    assert json.loads(judged.text.splitlines()[1])["status"] == "accepted"
    assert pipeline.drained().tenants[tenant].outcomes["applied"] == 3
    read = pipeline.http.get(f"{base}/orders", headers={"X-API-Key": key})
    assert read.text.count("external_order_id") == 1
    assert pipeline.cli("tenants", "list").returncode == 0
    assert pipeline.cli("replay", "--tenant", tenant).returncode == 0


@pytest.mark.parametrize(
    "changed",
    [{"kafka_sasl_password": "wrong"}, {"kafka_security_protocol": "PLAINTEXT"}, {"kafka_ssl_ca_file": ""}],
    ids=["password", "plaintext", "authority"],
)
def test_who_cannot_prove_it_is_not_let_in(secured: Settings, changed: dict[str, str]) -> None:
    settings = replace(secured, **changed)
    client = confluent_kafka.admin.AdminClient({**settings.kafka, "log_level": 0})
    with pytest.raises(confluent_kafka.KafkaException):
        client.list_topics(timeout=3)


def test_a_database_with_another_certificate_is_not_believed(secured: Settings, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    url = secured.database_url.replace(secured.kafka_ssl_ca_file, str(tmp_path / "other.pem"))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(url)


def test_passwords_stay_out_of_what_is_printed(secured: Settings) -> None:
    shown = repr(replace(secured, secret="s3cret" * 8, admin_token="t0ken" * 8))
    for hidden in (PASSWORD, READER_PASSWORD, "s3cret", "t0ken", "postgresql://"):
        assert hidden not in shown


@pytest.mark.parametrize(
    ("env", "says"),
    [({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL takes PLAINTEXT, SSL"),
     ({"KAFKA_SASL_MECHANISM": "MD5"}, "KAFKA_SASL_MECHANISM takes PLAIN"),
     ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "x"}, "needs KAFKA_SASL_USERNAME and")],
)  # fmt: skip
def test_what_no_client_understands_is_said_at_the_start(env: dict[str, str], says: str) -> None:
    with pytest.raises(Misconfigured, match=says):
        Settings.from_env(env)
