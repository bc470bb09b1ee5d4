//! A vendor's world, drawn from the seed: customers with sites, appliances, services, groups (k of n), hours, contacts, staff.
//!
//! Test code only. It is written into a fresh database once, as the commands of an operator would leave it.

use mainstay_shared::ids::ApplianceId;

use super::rng::Rng;

/// A site's time zone.
pub(super) const ZONE: &str = "Asia/Shanghai";
/// When appliances with hours are on.
pub(super) const HOURS: &str = "07:00-20:00";

/// One appliance of a customer.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) tenant: String,
    pub(super) site: String,
    pub(super) appliance: ApplianceId,
    /// For traces: `c0/a1`.
    pub(super) name: String,
    pub(super) services: Vec<&'static str>,
    /// The first service depends on `disk:/var`.
    pub(super) depends: bool,
    /// Off at night.
    pub(super) hours: bool,
}

/// "Needs k of these".
#[derive(Debug, Clone)]
pub(super) struct GroupPlan {
    pub(super) tenant: String,
    pub(super) group: String,
    pub(super) needs: usize,
    /// Positions of the places.
    pub(super) members: Vec<usize>,
    pub(super) service: &'static str,
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) tenants: Vec<String>,
    pub(super) places: Vec<Place>,
    pub(super) groups: Vec<GroupPlan>,
}

impl Fleet {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let mut fleet = Self { tenants: Vec::new(), places: Vec::new(), groups: Vec::new() };
        for c in 0..rng.between(2, 6) {
            let tenant = format!("c{c}");
            let begin = fleet.places.len();
            for a in 0..rng.between(1, 4) {
                let services: &[&str] = rng.pick(&[&["web"], &["web"], &["web", "mail"], &["mail"], &[]]);
                fleet.places.push(Place {
                    tenant: tenant.clone(),
                    site: if rng.chance(75) { "hall".into() } else { "branch".into() },
                    appliance: format!("{:032x}", begin * 16 + usize::try_from(a).expect("small")).parse().expect("an id"),
                    name: format!("{tenant}/a{a}"),
                    services: services.to_vec(),
                    depends: rng.chance(50),
                    hours: rng.chance(10),
                });
            }
            for service in ["web", "mail"] {
                let members: Vec<usize> =
                    (begin..fleet.places.len()).filter(|p| fleet.places[*p].services.contains(&service)).collect();
                if members.len() > 1 && rng.chance(75) {
                    let needs = 1 + rng.index(members.len());
                    fleet.groups.push(GroupPlan {
                        tenant: tenant.clone(),
                        group: format!("g-{service}"),
                        needs,
                        members,
                        service,
                    });
                }
            }
            fleet.tenants.push(tenant);
        }
        fleet
    }

    pub(super) fn group_of(&self, place: usize, service: &str) -> Option<&GroupPlan> {
        self.groups.iter().find(|group| group.service == service && group.members.contains(&place))
    }

    pub(super) fn position(&self, appliance: &str) -> Option<usize> {
        self.places.iter().position(|place| place.appliance.as_str() == appliance)
    }

    /// The statements that make it so.
    pub(super) fn sql(&self) -> Vec<String> {
        let mut sql = vec![
            "INSERT INTO customers (tenant_id, name, language, created_at) VALUES ('vendor', 'Vendor', 'zh', 0)".to_owned(),
            "INSERT INTO collector (only_row, epoch, created_at, started_at) VALUES (1, '00000000000000000000000000000001', 0, 0)"
                .to_owned(),
        ];
        for (name, role) in [
            ("wang", "system_engineer"),
            ("zhao", "support_manager"),
            ("qian", "service_manager"),
            ("sun", "senior_management"),
            ("op", "operator"),
        ] {
            sql.push(format!(
                "INSERT INTO staff (staff_id, username, name, email, phone, role, language, password_hash, totp_secret,
                   totp_last_step, failed_count, created_at)
                 VALUES ('{name}', '{name}', '{name}', '{name}@vendor.example', '', '{role}', 'zh', '', '', 0, 0, 0)"
            ));
        }
        for tenant in &self.tenants {
            sql.push(format!(
                "INSERT INTO customers (tenant_id, name, language, created_at) VALUES ('{tenant}', '{tenant}', 'zh', 0)"
            ));
            for site in ["hall", "branch"] {
                sql.push(format!(
                    "INSERT INTO sites (tenant_id, site_id, name, city, time_zone) VALUES ('{tenant}', '{site}', '{site}', '重庆', '{ZONE}')"
                ));
            }
            sql.push(format!(
                "INSERT INTO contacts (tenant_id, contact_id, site_id, name, email, phone, language)
                 VALUES ('{tenant}', 'li', NULL, 'Li', 'li@{tenant}.example', '', 'zh')"
            ));
        }
        for place in &self.places {
            let (tenant, id) = (&place.tenant, &place.appliance);
            sql.push(format!(
                "INSERT INTO appliances (tenant_id, appliance_id, site_id, name, product, vendor, model, serial, duty, parts,
                   agent_version, platform, state, held_reason, enrol_attempt, expected_hours, enrolled_at)
                 VALUES ('{tenant}', '{id}', '{}', '{}', 'fw', '', '', '', 'primary', '[]', '', '', 'active', '', '', '{}', 0)",
                place.site,
                place.name,
                if place.hours { HOURS } else { "" },
            ));
            sql.push(format!(
                "INSERT INTO links (tenant_id, appliance_id, last_seen_at, epoch, attempt, nonce, nonce_before,
                   clock_offset_ms, backlog, present_values, services, goodbye_reason)
                 VALUES ('{tenant}', '{id}', 0, '', 0, '', '', 0, 0, '{{}}', '{{}}', '')"
            ));
        }
        for GroupPlan { tenant, group, needs, members, service } in &self.groups {
            sql.push(format!(
                "INSERT INTO service_groups (tenant_id, group_id, name, needs) VALUES ('{tenant}', '{group}', '{group}', {needs})"
            ));
            for member in members {
                let id = &self.places[*member].appliance;
                sql.push(format!(
                    "INSERT INTO service_group_members (tenant_id, group_id, appliance_id, service)
                     VALUES ('{tenant}', '{group}', '{id}', '{service}')"
                ));
            }
        }
        sql
    }
}
