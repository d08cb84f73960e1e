"""
All that a process reads from its environment, checked before it opens a connection.

Every field can be set as AURASTREAM_<FIELD>. AURASTREAM_HOME (the embedded server's directory) is read by
embedded.py.
"""

from __future__ import annotations

from base64 import b64decode
from enum import StrEnum
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Ack(StrEnum):
    """What an append's success vouches for."""

    MEMORY = "memory"  # the server has it: lost with the server's memory, or on fail-over
    REPLICA = "replica"  # WAIT: `replicas` replicas have it as well
    DISK = "disk"  # appendfsync always: on this server's disk


class Pressure(StrEnum):
    """What happens to a producer that is too far ahead of the slowest group."""

    WAIT = "wait"  # it waits, at most pressure_wait_s
    REFUSE = "refuse"  # it is told at once


class Settings(BaseSettings):
    """How this process reaches the server and the log."""

    model_config = SettingsConfigDict(
        env_prefix="AURASTREAM_", extra="ignore", frozen=True, env_ignore_empty=True
    )

    redis_url: SecretStr | None = Field(
        default=None, description="redis://, rediss:// or unix://; none starts the embedded server"
    )
    broker: SecretStr | None = Field(
        default=None, description="kafka://host:port, when the events are in Kafka; the views stay in Redis"
    )
    topics: str = Field(default="", description="with a broker: the topics to consume, separated by commas")
    partitions: int = Field(
        default=4, ge=1, le=1024, description="of streams this process creates; fixed for a stream's life"
    )
    ack: Ack = Field(default=Ack.MEMORY, description="acknowledgement level of appends")
    replicas: int = Field(default=1, ge=1, le=16, description="how many replicas ack=replica waits for")
    wait_ms: int = Field(default=1_000, ge=1, le=60_000, description="how long ack=replica waits")
    budget_events: int = Field(
        default=1_000_000, ge=0, description="a partition's events ahead of its slowest group; 0: no bound"
    )
    budget_bytes: int = Field(
        default=512 * 2**20, ge=0, description="the same in bytes of memory; 0: no bound"
    )
    pressure: Pressure = Field(
        default=Pressure.WAIT, description="what a producer beyond a budget does: wait, or refuse"
    )
    pressure_wait_s: float = Field(
        default=30.0, ge=0, le=3_600, description="how long it waits before it is refused after all"
    )
    answer_timeout_s: float = Field(
        default=4.0,
        ge=0.1,
        le=600,
        description="after which a server that says nothing is taken for lost: of each answer and each new "
        "connection, besides what a blocking command waits",
    )
    server_wait_s: float = Field(
        default=10.0,
        ge=0,
        le=3_600,
        description="how long an append, a read or a verb waits for a server that is away, loading or "
        "refuses (full, read-only, without replicas); `aurastream run` waits until it is stopped",
    )
    attempts_max: int = Field(
        default=8,
        ge=1,
        le=100,
        description="tries of an idempotent operation when the connection fails; at least so many, however "
        "long they take",
    )
    batch_max: int = Field(
        default=16_000,
        ge=1,
        le=16_000,
        description="most entries of a commit: a lane's batch grows with its lag",
    )
    commit_ms: int = Field(
        default=20,
        ge=1,
        le=10_000,
        description="how long a commit may hold the server: a batch grows up to that",
    )
    lease_ms: int = Field(
        default=3_000, ge=200, le=600_000, description="after which a dead host's partitions are taken over"
    )
    patience_s: float = Field(
        default=30.0,
        ge=0,
        le=3_600,
        description="how long a host that stops lets handlers end; then they are cut off: no attempt",
    )
    archive: str = Field(
        default="",
        description="where closed segments of the log go: a directory or an fsspec URL (s3://bucket/prefix)",
    )
    archive_options: dict[str, Any] = Field(
        default_factory=dict, repr=False, description="of the fsspec file system, as JSON"
    )
    archive_signing_key: str = Field(
        default="",
        description="path of an ed25519 private key in PEM: the archive's heads are signed with it",
    )
    archive_verify_key: str = Field(
        default="", description="path of the public key in PEM: `audit verify` wants each head signed by it"
    )
    segment_events: int = Field(
        default=100_000, ge=1, le=1_000_000, description="most entries of a segment of the archive"
    )
    master_key: SecretStr | None = Field(
        default=None, description="32 bytes in base64; wraps the creators' keys (streams/personal/keyring.py)"
    )

    @field_validator("master_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(b64decode(value.get_secret_value(), validate=True)) != 32:
            raise ValueError("it must be 32 random bytes in base64, as `openssl rand -base64 32` makes them")
        return value
