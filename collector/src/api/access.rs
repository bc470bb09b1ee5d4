//! Who asks, and what that lets them: the principal that the authentication layer (in `router`) puts on every request that passes.
//! Rights here are of the route; what a role may do to a ticket is decided by the story of that act.

use crate::customers::{Language, Role};

use super::sessions::Session;

/// What a route asks of its caller beyond being known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Any account.
    Read,
    /// Works on tickets: takes, responds, notes, closes.
    WorkOnTickets,
    /// Administers users, enrolment, held appliances.
    Administer,
}

impl Right {
    /// Whether `role` has it.
    pub(crate) fn is_held_by(self, role: Role) -> bool {
        match self {
            Self::Read => true,
            Self::WorkOnTickets => role.works_on_tickets(),
            Self::Administer => role.administers(),
        }
    }
}

/// By what the caller is known.
#[derive(Debug, Clone)]
pub(crate) enum Via {
    /// A browser's session.
    Session(Box<Session>),
    /// A bearer token's id.
    Token(String),
}

/// A known caller.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    pub(crate) staff_id: String,
    pub(crate) name: String,
    /// The account's role, or the token's.
    pub(crate) role: Role,
    /// The one customer that a token is bound to; `None`: all (R23).
    pub(crate) tenant: Option<String>,
    pub(crate) via: Via,
}

impl Principal {
    /// A session's account.
    pub(crate) fn of_session(session: Session) -> Self {
        Self {
            staff_id: session.staff_id.clone(),
            name: session.name.clone(),
            role: session.role,
            tenant: None,
            via: Via::Session(Box::new(session)),
        }
    }

    /// Whether this caller may see that customer's records at all.
    pub(crate) fn sees(&self, tenant_id: &str) -> bool {
        self.tenant.as_deref().is_none_or(|own| own == tenant_id)
    }

    /// The actor of audit events: the person at the console, or the token.
    pub(crate) fn actor(&self) -> String {
        match &self.via {
            Via::Session(_) => format!("staff:{}", self.staff_id),
            Via::Token(token_id) => format!("token:{token_id}"),
        }
    }

    /// The session, for pages (the layer lets only sessions reach them).
    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.via {
            Via::Session(session) => Some(session),
            Via::Token(_) => None,
        }
    }
}

/// How a page is to be shown: put on every request that passes the layer.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    /// The account's language, else the cookie's, else the browser's, else the vendor's.
    pub(crate) language: Language,
    /// What forms carry: the session's, or before sign-in the form cookie's.
    pub(crate) csrf_token: String,
}
