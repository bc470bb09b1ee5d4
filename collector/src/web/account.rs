//! The reader's own account: language, open sessions, and API tokens. A token's secret is shown on the answer to the form that
//! made it and never again; making one asks for a fresh code (R12).

use std::collections::HashMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use mainstay_shared::time_source::UnixMs;
use serde::Deserialize;

use super::choice::Choice;
use super::shell::{PageError, PageResult, Said, Shell, back_to, page, said};
use crate::api::access::{Principal, Viewer};
use crate::api::sessions::sign_in::{self, TokenOutcome, WantedToken};
use crate::api::sessions::{rules, store, tokens};
use crate::customers::{Role, listing};
use crate::flow::World;
use crate::words::when;

struct SessionRow {
    here: bool,
    since: String,
    seen: String,
    until: String,
}

struct TokenRow {
    id: String,
    name: String,
    role: &'static str,
    customer: String,
    until: String,
    live: bool,
    state: &'static str,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    username: String,
    sessions: Vec<SessionRow>,
    tokens: Vec<TokenRow>,
    roles: Vec<&'static str>,
    choice: Choice,
    /// A token just made: shown once.
    secret: Option<String>,
}

/// What is told above the page.
#[derive(Default)]
struct Told {
    said: Option<Said>,
    secret: Option<String>,
}

async fn form(world: &World, viewer: &Viewer, principal: &Principal, told: Told, find: Option<String>) -> PageResult {
    let shell = Shell::of(world, viewer, principal, "account", "/account");
    let (w, now) = (shell.w, world.time.now());
    let mut conn = world.db.snapshot().await?;
    let sessions = store::of_staff(&mut conn, &principal.staff_id).await?;
    let tokens = tokens::of_staff(&mut conn, &principal.staff_id).await?;
    let bound = tokens.iter().filter_map(|token| token.tenant_id.clone()).collect();
    let names = listing::names(&mut conn, &bound).await?;
    let choice = Choice::load(&mut conn, None, find).await?;
    let own = principal.session().map(|session| (session.session_hash.clone(), session.username.clone())).unwrap_or_default();
    let title = w.t("account.title");
    page(&AccountPage {
        shell: shell.titled(title),
        now: now.0,
        said: told.said,
        username: own.1,
        sessions: sessions
            .iter()
            .map(|session| SessionRow {
                here: session.session_hash == own.0,
                since: when::moment(session.created_at, "UTC"),
                seen: when::ago(w, now, session.last_seen_at),
                until: when::moment(session.expires_at, "UTC"),
            })
            .collect(),
        tokens: tokens.iter().map(|token| token_row(token, &names, now)).collect(),
        roles: Role::ALL.into_iter().filter(|role| rules::covers(principal.role, *role)).map(Role::as_str).collect(),
        choice,
        secret: told.secret,
    })
}

fn token_row(token: &tokens::Token, names: &HashMap<String, String>, now: UnixMs) -> TokenRow {
    let verdict = rules::judge_token(token, now);
    let customer = token.tenant_id.as_ref().map(|id| names.get(id).unwrap_or(id));
    TokenRow {
        id: token.token_id.clone(),
        name: token.name.clone(),
        role: token.role.as_str(),
        customer: customer.cloned().unwrap_or_default(),
        until: when::moment(token.expires_at, "UTC"),
        live: verdict == rules::TokenVerdict::Good,
        state: match verdict {
            rules::TokenVerdict::Good => "good",
            rules::TokenVerdict::Expired => "expired",
            rules::TokenVerdict::Revoked => "revoked",
            rules::TokenVerdict::MakerDisabled | rules::TokenVerdict::MakerLostRights => "void",
        },
    }
}

/// What the address may ask.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Wish {
    said: Option<String>,
    /// A customer to whom a token is to be bound.
    find: Option<String>,
}

/// `GET /account`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Query(wish): Query<Wish>,
) -> PageResult {
    let said = said(crate::words::Words(viewer.language), wish.said.as_deref());
    form(&world, &viewer, &principal, Told { said, secret: None }, wish.find).await
}

/// `POST /account/sessions/end-others`.
pub(crate) async fn end_others(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
) -> Result<Response, PageError> {
    if let Some(session) = principal.session() {
        sign_in::out_elsewhere(&world, session).await?;
    }
    Ok(back_to("/account", "done_sessions_ended"))
}

/// The form for a new token.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenForm {
    name: String,
    role: String,
    #[serde(default)]
    customer: String,
    days: String,
    code: String,
}

/// `POST /account/tokens`.
pub(crate) async fn make_token(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Form(wish): Form<TokenForm>,
) -> PageResult {
    let (Some(session), Some(role)) = (principal.session(), Role::from_name(&wish.role)) else {
        return Ok(back_to("/account", "refused_bad_form"));
    };
    let wanted = WantedToken {
        name: wish.name.trim().to_owned(),
        role,
        tenant_id: Some(wish.customer).filter(|customer| !customer.is_empty()),
        days: wish.days.parse().unwrap_or(0),
    };
    match sign_in::make_token(&world, session, wanted, &wish.code).await? {
        TokenOutcome::Made { secret } => form(&world, &viewer, &principal, Told { said: None, secret: Some(secret) }, None).await,
        TokenOutcome::WrongCode => Ok(back_to("/account", "refused_code")),
        TokenOutcome::TooManyRights => Ok(back_to("/account", "refused_rights")),
        TokenOutcome::BadWish => Ok(back_to("/account", "refused_bad_form")),
    }
}

/// `POST /account/tokens/{token}/revoke`.
pub(crate) async fn revoke_token(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path(token_id): Path<String>,
) -> Result<Response, PageError> {
    let done = sign_in::revoke_token(&world, &principal.staff_id, &token_id).await?;
    Ok(back_to("/account", if done { "done_token_revoked" } else { "refused_nothing_to_decide" }))
}
