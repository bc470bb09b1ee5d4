//! Sign-in in two steps, sign-out, and the language switch. What is wrong is never said more precisely than "wrong".

use askama::Template;
use axum::Extension;
use axum::extract::{Form, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use super::cookies;
use super::shell::{PageResult, Shell, page};
use crate::api::access::{Principal, Viewer};
use crate::api::sessions::Stage;
use crate::api::sessions::sign_in::{self, Outcome};
use crate::customers::Language;
use crate::flow::World;

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    shell: Shell,
    /// Whether the code is asked for.
    code: bool,
    wrong: bool,
}

fn form(world: &World, viewer: &Viewer, code: bool, wrong: bool) -> PageResult {
    let path = if code { "/sign-in/code" } else { "/sign-in" };
    let shell = Shell::anonymous(world, viewer, path);
    let title = shell.w.t("sign_in.title");
    let mut response = page(&SignInPage { shell: shell.titled(title), code, wrong })?;
    if wrong {
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    Ok(response)
}

/// `GET /sign-in`.
pub(crate) async fn ask(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    principal: Option<Extension<Principal>>,
) -> PageResult {
    let signed_in = principal.is_some_and(|p| p.session().is_some_and(|session| session.stage == Stage::Full));
    if signed_in { Ok(Redirect::to("/").into_response()) } else { form(&world, &viewer, false, false) }
}

/// Name and password.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    username: String,
    password: String,
}

/// `POST /sign-in`.
pub(crate) async fn password(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Form(given): Form<Credentials>,
) -> PageResult {
    match sign_in::password(&world, given.username.trim(), &given.password).await? {
        Outcome::Refused => form(&world, &viewer, false, true),
        Outcome::Right { cookie } => {
            Ok(cookies::with(Redirect::to("/sign-in/code").into_response(), &world.config, cookies::SESSION, &cookie))
        }
    }
}

/// `GET /sign-in/code`.
pub(crate) async fn ask_code(State(world): State<World>, Extension(viewer): Extension<Viewer>) -> PageResult {
    form(&world, &viewer, true, false)
}

/// The six digits.
#[derive(Deserialize)]
pub(crate) struct Code {
    code: String,
}

/// `POST /sign-in/code`.
pub(crate) async fn code(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Form(given): Form<Code>,
) -> PageResult {
    let Some(half) = principal.session() else { return Ok(Redirect::to("/sign-in").into_response()) };
    match sign_in::code(&world, half, &given.code).await? {
        Outcome::Refused => form(&world, &viewer, true, true),
        Outcome::Right { cookie } => {
            Ok(cookies::with(Redirect::to("/").into_response(), &world.config, cookies::SESSION, &cookie))
        }
    }
}

/// `POST /sign-out`.
pub(crate) async fn out(State(world): State<World>, Extension(principal): Extension<Principal>) -> PageResult {
    if let Some(session) = principal.session() {
        sign_in::out(&world, session).await?;
    }
    Ok(cookies::without(Redirect::to("/sign-in").into_response(), &world.config, cookies::SESSION))
}

/// A language, and the page to come back to.
#[derive(Deserialize)]
pub(crate) struct Switch {
    language: String,
    back: String,
}

/// `POST /language`: kept with the account, or in a cookie before sign-in.
pub(crate) async fn language(
    State(world): State<World>,
    principal: Option<Extension<Principal>>,
    Form(wish): Form<Switch>,
) -> PageResult {
    // Only our own pages: an absolute or protocol-relative address would lead elsewhere.
    let ours = wish.back.starts_with('/') && !wish.back.starts_with("//") && !wish.back.contains(['\\', '\r', '\n']);
    let response: Response = Redirect::to(if ours { &wish.back } else { "/" }).into_response();
    let Some(language) = Language::from_code(&wish.language) else { return Ok(response) };
    if let Some(Extension(principal)) = principal {
        sign_in::read_in(&world, &principal.staff_id, language).await?;
    }
    Ok(cookies::with(response, &world.config, cookies::LANGUAGE, language.as_str()))
}
