-- A report touches one row of its appliance: the watermarks of the run that speaks lie in the link. `lane_marks` keeps those of runs
-- that have ended. No index stands on what every report changes: silence reads all links, once a pass.
DROP INDEX links_by_last_seen;
ALTER TABLE links ADD COLUMN fault_mark BIGINT NOT NULL DEFAULT 0;
ALTER TABLE links ADD COLUMN sample_mark BIGINT NOT NULL DEFAULT 0;
UPDATE links SET
    fault_mark = COALESCE((SELECT m.seq FROM lane_marks m WHERE m.tenant_id = links.tenant_id
        AND m.appliance_id = links.appliance_id AND m.epoch = links.epoch AND m.lane = 'fault'), 0),
    sample_mark = COALESCE((SELECT m.seq FROM lane_marks m WHERE m.tenant_id = links.tenant_id
        AND m.appliance_id = links.appliance_id AND m.epoch = links.epoch AND m.lane = 'sample'), 0);
