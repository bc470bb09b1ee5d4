//! The words in which a fault's weight is told (C1). The decision itself is the collector's.

use serde::{Deserialize, Serialize};

/// Two severities, by effect on function (C1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// 一般故障: system function is affected slightly.
    General,
    /// 严重故障: the customer's business is interrupted.
    Critical,
}

/// How far the customer's business is affected; severity derives from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BusinessImpact {
    /// Not at all.
    None,
    /// Slightly.
    Slight,
    /// Severely, though it goes on (the condition of a loan unit, C19).
    Severe,
    /// It stands still.
    Interrupted,
}

impl BusinessImpact {
    /// `interrupted` is critical, everything else general (C1).
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Interrupted => Severity::Critical,
            Self::None | Self::Slight | Self::Severe => Severity::General,
        }
    }
}

/// Whose fault it turned out to be. A ticket opens and is answered at once whatever this will say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// Our product or service.
    Ours,
    /// The customer's own equipment or doing.
    Customer,
    /// Somebody else's (carrier, power, other vendor).
    ThirdParty,
    /// Not known yet.
    Unknown,
}

macro_rules! wire_names {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// All values, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name on the wire, in the database and in text keys.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value of that name, if there is one.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| v.as_str() == name)
            }
        }
    };
}
pub(crate) use wire_names;

wire_names!(Severity { General = "general", Critical = "critical" });
wire_names!(BusinessImpact { None = "none", Slight = "slight", Severe = "severe", Interrupted = "interrupted" });
wire_names!(Attribution { Ours = "ours", Customer = "customer", ThirdParty = "third_party", Unknown = "unknown" });
