//! What surrounds every page: head, navigation, language switch, messages, and the one way from a template to an answer.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::assets;
use crate::api::access::{Principal, Viewer};
use crate::customers::Language;
use crate::flow::World;
use crate::words::Words;

/// The surroundings of one page.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    pub(crate) w: Words,
    /// What the vendor calls its service.
    pub(crate) service: String,
    pub(crate) title: String,
    /// Which entry of the navigation is this page's.
    pub(crate) here: &'static str,
    pub(crate) csrf: String,
    pub(crate) me: Option<Me>,
    /// Where the page stands: the language switch comes back to it.
    pub(crate) path: String,
    pub(crate) css: String,
    pub(crate) js: String,
    pub(crate) icon: String,
}

/// Who reads.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) works: bool,
}

impl Shell {
    /// For somebody signed in.
    pub(crate) fn of(world: &World, viewer: &Viewer, principal: &Principal, here: &'static str, path: &str) -> Self {
        let me = Me { name: principal.name.clone(), role: principal.role.as_str(), works: principal.role.works_on_tickets() };
        Self { me: Some(me), here, ..Self::anonymous(world, viewer, path) }
    }

    /// For nobody yet.
    pub(crate) fn anonymous(world: &World, viewer: &Viewer, path: &str) -> Self {
        Self {
            service: world.config.service_name.clone(),
            csrf: viewer.csrf_token.clone(),
            path: path.to_owned(),
            ..Self::bare(viewer.language)
        }
    }

    /// For who holds a mail's link: nothing of the console but its clothes.
    pub(crate) fn for_link(world: &World, language: Language) -> Self {
        Self { service: world.config.service_name.clone(), ..Self::bare(language) }
    }

    fn bare(language: Language) -> Self {
        Self {
            w: Words(language),
            service: "Mainstay".to_owned(),
            title: String::new(),
            here: "",
            csrf: String::new(),
            me: None,
            path: "/".to_owned(),
            css: assets::address("console.css"),
            js: assets::address("console.js"),
            icon: assets::address("mark.svg"),
        }
    }

    /// With the page's title.
    pub(crate) fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }
}

/// A page's answer.
pub(crate) fn page(template: &impl Template) -> PageResult {
    Ok(Html(template.render()?).into_response())
}

/// What page handlers answer.
pub(crate) type PageResult = Result<Response, PageError>;

/// Why a page can't be shown.
#[derive(Debug)]
pub(crate) enum PageError {
    /// There is nothing of that name.
    NotFound(Language),
    /// Ours to mend.
    Internal(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(language) => error_page(language, StatusCode::NOT_FOUND, "error.not_found", ""),
            Self::Internal(error) => {
                tracing::error!(error = format!("{error:#}"), "a page failed");
                error_page(Language::En, StatusCode::INTERNAL_SERVER_ERROR, "error.internal", "")
            }
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    shell: Shell,
    status: u16,
    text: String,
}

/// A small page that says what was wrong and where to go on.
pub(crate) fn error_page(language: Language, status: StatusCode, key: &str, value: &str) -> Response {
    let text = Words(language).with(key, &[("value", &value)]);
    let shell = Shell::bare(language).titled(Words(language).t("error.title"));
    match (ErrorPage { shell, status: status.as_u16(), text }).render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => status.into_response(),
    }
}

/// After an act: back to the page, as a GET (R18). `message` is a key of `done.*` or `refused.*`, shown there.
pub(crate) fn back_to(path: &str, message: &str) -> Response {
    if message.is_empty() {
        return Redirect::to(path).into_response();
    }
    Redirect::to(&format!("{path}?said={message}")).into_response()
}

/// The message of the act before, if it is one of ours: never text from the address.
pub(crate) fn said(w: Words, given: Option<&str>) -> Option<Said> {
    let word = given?;
    let known = word.len() < 40 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let text = w.t(&format!("said.{word}"));
    (known && !text.starts_with("said.")).then(|| Said { good: word.starts_with("done"), text: text.into_owned() })
}

/// A message above a page.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) text: String,
}
