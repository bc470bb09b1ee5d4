-- What pages, lists and periods ask stays cheap with a million tickets: each question has an index of just the rows that it asks for
-- (those that are not closed, not sent, not answered), so that history costs nothing. No report touches any of them.

-- Lists of tickets, newest first.
DROP INDEX tickets_by_state;
CREATE INDEX tickets_by_state ON tickets (state, number);
CREATE INDEX tickets_by_severity ON tickets (severity, number);
CREATE INDEX tickets_by_customer ON tickets (tenant_id, number);
CREATE INDEX tickets_by_appliance ON tickets (tenant_id, appliance_id, number);
-- What is not closed: lists, what a fault may belong to, counts.
CREATE INDEX tickets_live ON tickets (number) WHERE state <> 'closed';
CREATE INDEX tickets_live_by_customer ON tickets (tenant_id, number) WHERE state <> 'closed';
CREATE INDEX tickets_live_by_appliance ON tickets (tenant_id, appliance_id) WHERE state <> 'closed';
CREATE INDEX tickets_live_counts ON tickets (tenant_id, state, severity, responded_at) WHERE state <> 'closed';
-- The order of the first page: the worst first.
CREATE INDEX tickets_live_by_rank ON tickets (state, severity, responded_at, number) WHERE state <> 'closed';
-- Closing by rule, joining what was closed a moment ago, the day's digest.
CREATE INDEX tickets_recovered ON tickets (state, recovered_at) WHERE state = 'recovered';
CREATE INDEX tickets_by_closing ON tickets (tenant_id, closed_at);
CREATE INDEX tickets_by_opening ON tickets (tenant_id, opened_at);

DROP INDEX episodes_open;
CREATE INDEX episodes_open ON episodes (tenant_id, raised_at) WHERE state = 'open';
CREATE INDEX episodes_by_appliance ON episodes (tenant_id, appliance_id, cleared_at);

DROP INDEX clocks_due;
CREATE INDEX clocks_due ON clocks (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX clocks_unanswered ON clocks (due_at) WHERE stopped_at IS NULL;

DROP INDEX outbox_due;
CREATE INDEX outbox_due ON outbox (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX outbox_unsent ON outbox (state, created_at) WHERE state <> 'sent';
CREATE INDEX outbox_by_subject ON outbox (tenant_id, subject_id, created_at);
CREATE INDEX outbox_by_age ON outbox (created_at);

DROP INDEX directives_open;
CREATE INDEX directives_open ON directives (tenant_id, appliance_id) WHERE done_at IS NULL;

CREATE INDEX directives_by_expiry ON directives (expires_at);

CREATE INDEX links_silent ON links (tenant_id, appliance_id) WHERE silent_since_at IS NOT NULL;
CREATE INDEX appliances_by_state ON appliances (state);
CREATE INDEX appliances_by_site ON appliances (tenant_id, site_id);
