//! Customers (the tenants), their sites and contacts, and the vendor's staff with the roles of C8.
//!
//! Types that every later room uses; the SQL stands in `store.rs`. A tenant's rows are never read without its id (R23).

use mainstay_shared::time_source::UnixMs;
use serde::{Deserialize, Serialize};

pub(crate) mod credentials;
pub(crate) mod store;
pub(crate) mod listing;

/// The vendor's own tenant: staff, keys and internal tickets are recorded there.
pub(crate) const VENDOR_TENANT: &str = "vendor";

/// A language that people read texts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    /// Simplified Chinese.
    Zh,
    /// English.
    En,
}

impl Language {
    /// Both, Chinese first.
    pub(crate) const ALL: [Self; 2] = [Self::Zh, Self::En];

    /// The code in the database and in locale files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zh => "zh",
            Self::En => "en",
        }
    }

    /// The language of that code.
    pub(crate) fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.as_str() == code)
    }
}

/// What a member of staff may do (C7, C8, and the operator who administers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Administers users, enrolment, backup.
    Operator,
    /// 高层领导: oversees.
    SeniorManagement,
    /// 售后服务经理: reached directly in an emergency (C7).
    ServiceManager,
    /// 客户支持经理: owns a customer's technical support; alone may lower an impact.
    SupportManager,
    /// 客户经理: the customer's standing contact.
    AccountManager,
    /// 系统工程师: diagnoses and clears faults.
    SystemEngineer,
}

impl Role {
    /// All roles.
    pub(crate) const ALL: [Self; 6] = [
        Self::Operator,
        Self::SeniorManagement,
        Self::ServiceManager,
        Self::SupportManager,
        Self::AccountManager,
        Self::SystemEngineer,
    ];

    /// The name in the database, in the API and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::SeniorManagement => "senior_management",
            Self::ServiceManager => "service_manager",
            Self::SupportManager => "support_manager",
            Self::AccountManager => "account_manager",
            Self::SystemEngineer => "system_engineer",
        }
    }

    /// The role of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }

    /// Works on tickets: takes, responds, notes, closes.
    pub(crate) fn works_on_tickets(self) -> bool {
        matches!(self, Self::ServiceManager | Self::SupportManager | Self::SystemEngineer)
    }

    /// May lower a business impact, with reason and the customer's word (DESIGN, Severity).
    pub(crate) fn lowers_impact(self) -> bool {
        self == Self::SupportManager
    }

    /// Administers users, tokens, enrolment, held appliances.
    pub(crate) fn administers(self) -> bool {
        self == Self::Operator
    }
}

/// A customer: a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Customer {
    pub(crate) tenant_id: String,
    pub(crate) name: String,
    pub(crate) language: Language,
    pub(crate) created_at: UnixMs,
}

/// A place of a customer's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Site {
    pub(crate) tenant_id: String,
    pub(crate) site_id: String,
    pub(crate) name: String,
    pub(crate) city: String,
    /// An IANA name such as `Asia/Shanghai`.
    pub(crate) time_zone: String,
}

/// A person at the customer's who is told and asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Contact {
    pub(crate) tenant_id: String,
    pub(crate) contact_id: String,
    /// Set: told of this site only.
    pub(crate) site_id: Option<String>,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) phone: String,
    pub(crate) language: Language,
}

/// A member of the vendor's staff. Its secrets stand apart, in [`store::Secrets`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Staff {
    pub(crate) staff_id: String,
    pub(crate) username: String,
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) phone: String,
    pub(crate) role: Role,
    pub(crate) language: Language,
    pub(crate) created_at: UnixMs,
    pub(crate) disabled_at: Option<UnixMs>,
}

/// Serves a customer in a role, which may differ from the account's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Serving {
    pub(crate) staff: Staff,
    pub(crate) role: Role,
}

/// What happens to accounts and master data: events of the tenant concerned, the vendor's for staff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum CustomerEvent {
    /// The collector was set up.
    CollectorInitialised { epoch: String },
    /// The database was put back from a backup.
    CollectorRestored { epoch: String, epoch_before: String, backup_made_at: UnixMs, ticket_numbers_skipped: i64 },
    /// A customer.
    CustomerAdded { tenant_id: String, name: String },
    /// A site.
    SiteAdded { site_id: String, name: String, city: String },
    /// A contact.
    ContactAdded { contact_id: String, name: String, email: String },
    /// A service group was declared or changed: it needs `needs` of `members` (`APPLIANCE:SERVICE`).
    ServiceGroupSet { group_id: String, needs: i64, members: Vec<String> },
    /// A staff account.
    UserAdded { staff_id: String, username: String, role: Role },
    /// An account lost its access.
    UserDisabled { staff_id: String, username: String },
    /// An account got a new password and a new TOTP secret; its sessions ended.
    UserReset { staff_id: String, username: String },
    /// An account now serves a customer in a role.
    UserServes { staff_id: String, tenant_id: String, role: Role },
    /// An account serves a customer no more, in no role.
    UserServesNoMore { staff_id: String, tenant_id: String },
}
