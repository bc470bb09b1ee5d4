-- The collector's records. One text for SQLite and PostgreSQL (see docs/database.md for the rules it keeps):
-- no BOOLEAN (BIGINT 0/1), times BIGINT ms since 1970 ending in _at, JSON as TEXT, the tenant first in every key (R23).

-- One row: what this life of the database is. `restore` gives it a new epoch.
CREATE TABLE collector (
    only_row        BIGINT PRIMARY KEY CHECK (only_row = 1),
    epoch           TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    started_at      BIGINT NOT NULL
);

-- Numbers handed out one by one: 'ticket', and 'change' (bumped by whatever a page or a long poll shows).
CREATE TABLE counters (
    name            TEXT   PRIMARY KEY,
    value           BIGINT NOT NULL
);

-- Customers are the tenants; the vendor is one too ('vendor': staff, keys, internal tickets).
CREATE TABLE customers (
    tenant_id       TEXT   PRIMARY KEY,
    name            TEXT   NOT NULL,
    language        TEXT   NOT NULL CHECK (language IN ('zh', 'en')),
    created_at      BIGINT NOT NULL
);

CREATE TABLE sites (
    tenant_id       TEXT   NOT NULL REFERENCES customers,
    site_id         TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    city            TEXT   NOT NULL,
    time_zone       TEXT   NOT NULL,
    PRIMARY KEY (tenant_id, site_id)
);

CREATE TABLE contacts (
    tenant_id       TEXT   NOT NULL REFERENCES customers,
    contact_id      TEXT   NOT NULL,
    site_id         TEXT,
    name            TEXT   NOT NULL,
    email           TEXT   NOT NULL,
    phone           TEXT   NOT NULL,
    language        TEXT   NOT NULL CHECK (language IN ('zh', 'en')),
    PRIMARY KEY (tenant_id, contact_id)
);

-- Staff accounts. Roles: the five of C8 (with C7) and 'operator'.
CREATE TABLE staff (
    staff_id        TEXT   PRIMARY KEY,
    username        TEXT   NOT NULL UNIQUE,
    name            TEXT   NOT NULL,
    email           TEXT   NOT NULL,
    phone           TEXT   NOT NULL,
    role            TEXT   NOT NULL,
    language        TEXT   NOT NULL CHECK (language IN ('zh', 'en')),
    password_hash   TEXT   NOT NULL,
    totp_secret     TEXT   NOT NULL,
    totp_last_step  BIGINT NOT NULL,
    failed_count    BIGINT NOT NULL,
    locked_until_at BIGINT,
    created_at      BIGINT NOT NULL,
    disabled_at     BIGINT
);

-- Who of the staff serves which customer, in which role: who is told.
CREATE TABLE customer_staff (
    tenant_id       TEXT   NOT NULL REFERENCES customers,
    staff_id        TEXT   NOT NULL REFERENCES staff,
    role            TEXT   NOT NULL,
    PRIMARY KEY (tenant_id, staff_id, role)
);

-- A browser's session: the cookie is an opaque id, this row decides.
CREATE TABLE sessions (
    session_hash    TEXT   PRIMARY KEY,
    staff_id        TEXT   NOT NULL REFERENCES staff,
    stage           TEXT   NOT NULL CHECK (stage IN ('password', 'full')),
    csrf_token      TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    last_seen_at    BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL
);
CREATE INDEX sessions_by_staff ON sessions (staff_id);

-- Bearer tokens of the API. Rights are a subset of the maker's (R9).
CREATE TABLE api_tokens (
    token_id        TEXT   PRIMARY KEY,
    token_hash      TEXT   NOT NULL UNIQUE,
    name            TEXT   NOT NULL,
    staff_id        TEXT   NOT NULL REFERENCES staff,
    role            TEXT   NOT NULL,
    tenant_id       TEXT,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    revoked_at      BIGINT
);

CREATE TABLE join_tokens (
    token_id        TEXT   PRIMARY KEY,
    tenant_id       TEXT   NOT NULL,
    site_id         TEXT   NOT NULL,
    product         TEXT   NOT NULL,
    duty            TEXT   NOT NULL CHECK (duty IN ('primary', 'standby', 'single')),
    secret_hash     TEXT   NOT NULL,
    uses_left       BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    FOREIGN KEY (tenant_id, site_id) REFERENCES sites (tenant_id, site_id)
);

CREATE TABLE appliances (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL UNIQUE,
    site_id         TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    product         TEXT   NOT NULL,
    vendor          TEXT   NOT NULL,
    model           TEXT   NOT NULL,
    serial          TEXT   NOT NULL,
    duty            TEXT   NOT NULL CHECK (duty IN ('primary', 'standby', 'single')),
    parts           TEXT   NOT NULL,
    agent_version   TEXT   NOT NULL,
    platform        TEXT   NOT NULL,
    state           TEXT   NOT NULL CHECK (state IN ('active', 'held', 'retired')),
    held_reason     TEXT   NOT NULL,
    enrol_attempt   TEXT   NOT NULL,
    expected_hours  TEXT   NOT NULL,
    enrolled_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id),
    FOREIGN KEY (tenant_id, site_id) REFERENCES sites (tenant_id, site_id)
);

-- An appliance's identity is its verified client certificate, only (R13).
CREATE TABLE certificates (
    fingerprint     TEXT   PRIMARY KEY,
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    public_key      TEXT   NOT NULL,
    pem             TEXT   NOT NULL,
    not_after_at    BIGINT NOT NULL,
    issued_at       BIGINT NOT NULL,
    revoked_at      BIGINT,
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);
CREATE INDEX certificates_by_appliance ON certificates (tenant_id, appliance_id);

-- Renewals of expired certificates that wait for an operator's click (R26).
CREATE TABLE renewal_requests (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    public_key      TEXT   NOT NULL,
    requested_at    BIGINT NOT NULL,
    approved_at     BIGINT,
    approved_by     TEXT,
    PRIMARY KEY (tenant_id, appliance_id)
);

-- The link to each appliance: when it was last heard, and the acknowledgement nonce.
CREATE TABLE links (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    last_seen_at    BIGINT NOT NULL,
    epoch           TEXT   NOT NULL,
    attempt         BIGINT NOT NULL,
    nonce           TEXT   NOT NULL,
    nonce_before    TEXT   NOT NULL,
    clock_offset_ms BIGINT NOT NULL,
    backlog         BIGINT NOT NULL,
    present_values  TEXT   NOT NULL,
    services        TEXT   NOT NULL,
    goodbye_reason  TEXT   NOT NULL,
    goodbye_at      BIGINT,
    expected_back_at BIGINT,
    silent_since_at BIGINT,
    PRIMARY KEY (tenant_id, appliance_id),
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);
CREATE INDEX links_by_last_seen ON links (last_seen_at);

CREATE TABLE lane_marks (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    epoch           TEXT   NOT NULL,
    lane            TEXT   NOT NULL,
    seq             BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id, epoch, lane)
);

-- Fault-lane records as they came; the hash tells a replay from another record under the same id.
CREATE TABLE fault_records (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    epoch           TEXT   NOT NULL,
    seq             BIGINT NOT NULL,
    hash            TEXT   NOT NULL,
    received_at     BIGINT NOT NULL,
    occurred_at     BIGINT NOT NULL,
    body            TEXT   NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id, epoch, seq, hash)
);

-- Every loss is counted, and why (R31).
CREATE TABLE gaps (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    epoch           TEXT   NOT NULL,
    lane            TEXT   NOT NULL,
    from_seq        BIGINT NOT NULL,
    to_seq          BIGINT NOT NULL,
    why             TEXT   NOT NULL,
    lost_count      BIGINT NOT NULL,
    received_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id, epoch, lane, from_seq)
);

-- Five-minute samples: one compact row a record (zstd of the metrics' JSON).
CREATE TABLE samples (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    from_at         BIGINT NOT NULL,
    to_at           BIGINT NOT NULL,
    metrics         BYTEA  NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id, from_at, to_at)
);

CREATE TABLE declared_services (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    service         TEXT   NOT NULL,
    title           TEXT   NOT NULL,
    depends_on      TEXT   NOT NULL,
    interval_s      BIGINT NOT NULL,
    declared_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id, service)
);

-- "Needs k of n": lives at the collector, spans appliances.
CREATE TABLE service_groups (
    tenant_id       TEXT   NOT NULL REFERENCES customers,
    group_id        TEXT   NOT NULL,
    name            TEXT   NOT NULL,
    needs           BIGINT NOT NULL CHECK (needs > 0),
    PRIMARY KEY (tenant_id, group_id)
);

CREATE TABLE service_group_members (
    tenant_id       TEXT   NOT NULL,
    group_id        TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    service         TEXT   NOT NULL,
    PRIMARY KEY (tenant_id, group_id, appliance_id, service),
    UNIQUE (tenant_id, appliance_id, service),
    FOREIGN KEY (tenant_id, group_id) REFERENCES service_groups (tenant_id, group_id),
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);

CREATE TABLE tickets (
    tenant_id       TEXT   NOT NULL REFERENCES customers,
    ticket_id       TEXT   NOT NULL UNIQUE,
    number          BIGINT NOT NULL UNIQUE,
    source          TEXT   NOT NULL CHECK (source IN ('agent', 'silence', 'human', 'internal')),
    state           TEXT   NOT NULL CHECK (state IN ('open', 'recovered', 'closed')),
    -- What makes two faults one cause; unique among tickets that are not closed, so that two nodes can't open two.
    cause           TEXT   NOT NULL,
    open_cause      TEXT,
    site_id         TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    component       TEXT   NOT NULL,
    code            TEXT   NOT NULL,
    summary         TEXT   NOT NULL,
    impact          TEXT   NOT NULL,
    severity        TEXT   NOT NULL,
    presumed        BIGINT NOT NULL,
    reason          TEXT   NOT NULL,
    grounds         TEXT   NOT NULL,
    attribution     TEXT   NOT NULL,
    assigned_to     TEXT,
    taken_by        TEXT,
    responded_by    TEXT,
    opened_at       BIGINT NOT NULL,
    fault_at        BIGINT NOT NULL,
    responded_at    BIGINT,
    recovered_at    BIGINT,
    closed_at       BIGINT,
    changed_at      BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, ticket_id),
    UNIQUE (tenant_id, open_cause)
);
CREATE INDEX tickets_by_state ON tickets (state, severity, number);
CREATE INDEX tickets_by_cause ON tickets (tenant_id, cause, number);

-- One run of a fault; its id is that of its raise record.
CREATE TABLE episodes (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    component       TEXT   NOT NULL,
    code            TEXT   NOT NULL,
    episode         TEXT   NOT NULL,
    state           TEXT   NOT NULL CHECK (state IN ('open', 'cleared')),
    level           TEXT   NOT NULL,
    summary         TEXT   NOT NULL,
    grounds         TEXT   NOT NULL,
    ticket_id       TEXT   NOT NULL,
    raised_at       BIGINT NOT NULL,
    received_at     BIGINT NOT NULL,
    cleared_at      BIGINT,
    PRIMARY KEY (tenant_id, appliance_id, component, code, episode),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES tickets (tenant_id, ticket_id)
);
CREATE INDEX episodes_by_ticket ON episodes (tenant_id, ticket_id);
CREATE INDEX episodes_open ON episodes (tenant_id, appliance_id, state);

-- Due rows are a cache of what the event log says under the policies; checked nightly against recomputation.
CREATE TABLE clocks (
    tenant_id       TEXT   NOT NULL,
    ticket_id       TEXT   NOT NULL,
    clock_no        BIGINT NOT NULL,
    kind            TEXT   NOT NULL CHECK (kind IN ('response')),
    policy_version  BIGINT NOT NULL,
    state           TEXT   NOT NULL CHECK (state IN ('running', 'met', 'missed', 'void')),
    started_at      BIGINT NOT NULL,
    warn_at         BIGINT NOT NULL,
    due_at          BIGINT NOT NULL,
    stopped_at      BIGINT,
    -- The next moment at which something must be told (warning, then breach); NULL when nothing is left to tell.
    next_at         BIGINT,
    PRIMARY KEY (tenant_id, ticket_id, clock_no),
    FOREIGN KEY (tenant_id, ticket_id) REFERENCES tickets (tenant_id, ticket_id)
);
CREATE INDEX clocks_due ON clocks (next_at);

CREATE TABLE clock_policies (
    version         BIGINT PRIMARY KEY,
    effective_at    BIGINT NOT NULL,
    body            TEXT   NOT NULL
);

-- Append-only: ticket and audit events, one hash chain per tenant. A ticket's timeline is its part of it.
CREATE TABLE events (
    tenant_id       TEXT   NOT NULL,
    seq             BIGINT NOT NULL,
    at              BIGINT NOT NULL,
    actor           TEXT   NOT NULL,
    subject         TEXT   NOT NULL,
    kind            TEXT   NOT NULL,
    body            TEXT   NOT NULL,
    previous_hash   TEXT   NOT NULL,
    hash            TEXT   NOT NULL,
    PRIMARY KEY (tenant_id, seq)
);
CREATE INDEX events_by_subject ON events (tenant_id, subject, seq);

-- Notices leave through here, written in the transaction of what they tell; sent means acknowledged by the receiver.
CREATE TABLE outbox (
    tenant_id       TEXT   NOT NULL,
    notice_id       TEXT   NOT NULL,
    subject_id      TEXT   NOT NULL,
    kind            TEXT   NOT NULL,
    channel         TEXT   NOT NULL,
    recipient       TEXT   NOT NULL,
    message_id      TEXT   NOT NULL,
    title           TEXT   NOT NULL,
    body            TEXT   NOT NULL,
    in_reply_to     TEXT   NOT NULL,
    state           TEXT   NOT NULL CHECK (state IN ('waiting', 'sent', 'refused')),
    tries           BIGINT NOT NULL,
    last_error      TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    next_try_at     BIGINT,
    sent_at         BIGINT,
    PRIMARY KEY (tenant_id, notice_id),
    UNIQUE (message_id)
);
CREATE INDEX outbox_due ON outbox (next_try_at);

CREATE TABLE directives (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    directive_id    TEXT   NOT NULL,
    ask             TEXT   NOT NULL,
    made_by         TEXT   NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    done_at         BIGINT,
    PRIMARY KEY (tenant_id, appliance_id, directive_id)
);
CREATE INDEX directives_open ON directives (tenant_id, appliance_id, done_at);
