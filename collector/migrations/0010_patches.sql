-- Signed files: what lies in the repository, what was offered to whom, what the boxes said of it, and what their customers are entitled to.

-- Files of the repository as this service has verified them; the vendor's, not a customer's.
CREATE TABLE release_files (
    file            TEXT   PRIMARY KEY,
    sha256          TEXT   NOT NULL,
    bytes           BIGINT NOT NULL,
    -- Length and time of change of the file that was read: another one is read again.
    mark            TEXT   NOT NULL,
    kind            TEXT   NOT NULL,
    product         TEXT   NOT NULL,
    version         TEXT   NOT NULL,
    manifest        TEXT   NOT NULL,
    manifest_sha256 TEXT   NOT NULL,
    state           TEXT   NOT NULL CHECK (state IN ('good', 'refused', 'withdrawn', 'gone')),
    refusal         TEXT   NOT NULL,
    expires_at      BIGINT NOT NULL,
    seen_at         BIGINT NOT NULL
);

-- What the online keys have signed: every node serves the newest.
CREATE TABLE online_metadata (
    role            TEXT   NOT NULL CHECK (role IN ('snapshot', 'timestamp')),
    version         BIGINT NOT NULL,
    body            TEXT   NOT NULL,
    names           TEXT   NOT NULL,
    signed_at       BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    PRIMARY KEY (role, version)
);

-- When what was signed offline ends: for the warnings.
CREATE TABLE signing_expiry (
    role            TEXT   PRIMARY KEY,
    version         BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL
);

-- Who does what only one node does.
CREATE TABLE leases (
    name            TEXT   PRIMARY KEY,
    holder          TEXT   NOT NULL,
    until_at        BIGINT NOT NULL
);

CREATE TABLE entitlements (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    software_until_at BIGINT,
    hardware_until_at BIGINT,
    service_until_at BIGINT,
    features        TEXT   NOT NULL,
    set_by          TEXT   NOT NULL,
    set_at          BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id),
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);

-- What runs on an appliance, as it says itself.
CREATE TABLE installed (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    product         TEXT   NOT NULL,
    version         TEXT   NOT NULL,
    hardware        TEXT   NOT NULL,
    patch_consent   TEXT   NOT NULL,
    action_consent  TEXT   NOT NULL,
    number          BIGINT NOT NULL,
    told_at         BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id),
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);
CREATE INDEX installed_by_version ON installed (product, version);

CREATE TABLE offers (
    tenant_id       TEXT   NOT NULL,
    offer_id        TEXT   NOT NULL,
    -- Offers of one file that were made to a customer in one go: what one link is about.
    batch_id        TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    file            TEXT   NOT NULL,
    sha256          TEXT   NOT NULL,
    bytes           BIGINT NOT NULL,
    kind            TEXT   NOT NULL,
    product         TEXT   NOT NULL,
    version         TEXT   NOT NULL,
    ticket_id       TEXT   NOT NULL,
    terms           TEXT   NOT NULL,
    state           TEXT   NOT NULL,
    percent         BIGINT NOT NULL,
    reason          TEXT   NOT NULL,
    detail          TEXT   NOT NULL,
    -- The number of the report that the state rests on.
    number          BIGINT NOT NULL,
    -- What was decided at the page of a link, and when: `approve`, `refuse` or nothing.
    decision        TEXT   NOT NULL,
    decided_at      BIGINT,
    made_by         TEXT   NOT NULL,
    made_at         BIGINT NOT NULL,
    changed_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    ended_at        BIGINT,
    PRIMARY KEY (tenant_id, offer_id),
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);
-- One living offer of a file to an appliance.
CREATE UNIQUE INDEX offers_living ON offers (tenant_id, appliance_id, sha256) WHERE ended_at IS NULL;
CREATE INDEX offers_by_appliance ON offers (tenant_id, appliance_id, made_at);
CREATE INDEX offers_by_file ON offers (file, made_at);
CREATE INDEX offers_by_batch ON offers (tenant_id, batch_id);
CREATE INDEX offers_by_ticket ON offers (tenant_id, ticket_id) WHERE ticket_id <> '';
CREATE INDEX offers_by_expiry ON offers (expires_at) WHERE ended_at IS NULL;

-- Every step that a box told of, online or by a receipt. A journal that began anew may use a number again, for something else.
CREATE TABLE patch_reports (
    tenant_id       TEXT   NOT NULL,
    appliance_id    TEXT   NOT NULL,
    number          BIGINT NOT NULL,
    sha256          TEXT   NOT NULL,
    step            TEXT   NOT NULL,
    offer_id        TEXT   NOT NULL,
    kind            TEXT   NOT NULL,
    product         TEXT   NOT NULL,
    from_version    TEXT   NOT NULL,
    to_version      TEXT   NOT NULL,
    reason          TEXT   NOT NULL,
    detail          TEXT   NOT NULL,
    output          TEXT   NOT NULL,
    way             TEXT   NOT NULL CHECK (way IN ('online', 'receipt')),
    occurred_at     BIGINT NOT NULL,
    received_at     BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, appliance_id, number, sha256, step),
    FOREIGN KEY (tenant_id, appliance_id) REFERENCES appliances (tenant_id, appliance_id)
);

-- Links in mails: the token is not here, its hash is. A link is about one batch of offers of one file to one customer.
CREATE TABLE offer_links (
    token_hash      TEXT   PRIMARY KEY,
    tenant_id       TEXT   NOT NULL REFERENCES customers,
    batch_id        TEXT   NOT NULL,
    sha256          TEXT   NOT NULL,
    recipient       TEXT   NOT NULL,
    language        TEXT   NOT NULL CHECK (language IN ('zh', 'en')),
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    downloads       BIGINT NOT NULL,
    codes_typed     BIGINT NOT NULL
);
CREATE INDEX offer_links_by_expiry ON offer_links (expires_at);
