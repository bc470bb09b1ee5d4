//! An engineer's desk: signs in to the console as a person does (password, then the six digits), makes an API token there and
//! asks the REST API with it. What a story asserts about tickets, it reads here.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use reqwest::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::authenticator::SignIn;
use crate::collector::Collector;
use crate::patience::{SOON, eventually};

/// A browser without a screen: cookies, forms, redirects.
#[derive(Debug)]
pub struct Console {
    client: Client,
    base: String,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// One answer of the console.
#[derive(Debug, Clone)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// Where it sends the browser.
    pub location: Option<String>,
    /// Its HTML.
    pub html: String,
}

impl Console {
    /// A visitor who has not signed in.
    ///
    /// # Errors
    /// When the TLS library refuses.
    pub fn visitor(base: &str) -> Result<Self> {
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(SOON).build()?;
        Ok(Self { client, base: base.to_owned(), cookies: Mutex::default() })
    }

    /// Signs in with password and code.
    ///
    /// # Errors
    /// When either is refused.
    pub async fn signed_in(base: &str, account: &SignIn) -> Result<Self> {
        let console = Self::visitor(base)?;
        let fields = [("username", account.username.as_str()), ("password", &account.password)];
        let page = console.submit("/sign-in", "/sign-in", &fields).await?;
        anyhow::ensure!(page.location.as_deref() == Some("/sign-in/code"), "the password was refused: {}", page.status);
        let page = console.submit("/sign-in/code", "/sign-in/code", &[("code", &account.next_code().await?)]).await?;
        anyhow::ensure!(page.location.as_deref() == Some("/"), "the code was refused: {} {}", page.status, page.html);
        Ok(console)
    }

    /// Fetches a page.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn page(&self, path: &str) -> Result<Page> {
        self.ask(Method::GET, path, None).await
    }

    /// Opens the form at `at`, fills it and sends it to `to`.
    ///
    /// # Errors
    /// When there is no such page or no answer.
    pub async fn submit(&self, at: &str, to: &str, fields: &[(&str, &str)]) -> Result<Page> {
        let form = self.page(at).await?;
        let csrf = between(&form.html, "name=\"csrf\" value=\"", "\"").context("a form with its token")?.to_owned();
        let mut all = fields.to_vec();
        all.push(("csrf", &csrf));
        let encoded = all.iter().map(|(k, v)| format!("{k}={}", percent(v))).collect::<Vec<_>>().join("&");
        self.ask(Method::POST, to, Some(encoded)).await
    }

    async fn ask(&self, method: Method, path: &str, form: Option<String>) -> Result<Page> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        let jar: String = self.cookies.lock().await.iter().map(|(k, v)| format!("{k}={v}; ")).collect();
        request = request.header(COOKIE, jar.trim_end_matches("; ")).header("Accept-Language", "en");
        if let Some(form) = form {
            request = request
                .header("Content-Type", "application/x-www-form-urlencoded")
                .header(ORIGIN, &self.base)
                .header("Sec-Fetch-Site", "same-origin")
                .body(form);
        }
        let response = request.send().await.with_context(|| format!("asking the console for {path}"))?;
        let mut jar = self.cookies.lock().await;
        for cookie in response.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        drop(jar);
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        Ok(Page { status: response.status(), location, html: response.text().await? })
    }
}

/// The API with a token.
#[derive(Debug, Clone)]
pub struct Desk {
    client: Client,
    base: String,
    token: String,
}

impl Desk {
    /// The desk of the collector's first operator.
    ///
    /// # Errors
    /// When signing in or making a token fails.
    pub async fn of(collector: &Collector) -> Result<Self> {
        Self::of_account(&collector.web_url(), &collector.operator).await
    }

    /// The desk of an account.
    ///
    /// # Errors
    /// As [`Desk::of`].
    pub async fn of_account(base: &str, account: &SignIn) -> Result<Self> {
        let console = Console::signed_in(base, account).await?;
        let code = account.next_code().await?;
        let wish = [("name", "desk"), ("role", account.role.as_str()), ("days", "365"), ("code", &code)];
        let made = console.submit("/account", "/account/tokens", &wish).await?;
        let token =
            between(&made.html, "<code class=\"secret\">", "<").with_context(|| format!("a new token: {made:?}"))?.to_owned();
        let client = Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(Self { client, base: base.to_owned(), token })
    }

    /// `GET` under `/api/v1`.
    ///
    /// # Errors
    /// When the answer is no success.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let response = self.client.get(format!("{}/api/v1{path}", self.base)).bearer_auth(&self.token).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if !status.is_success() {
            bail!("GET {path}: {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("GET {path}: {text}"))
    }

    /// `POST` under `/api/v1`.
    ///
    /// # Errors
    /// When the answer is no success.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/api/v1{path}", self.base);
        let response = self.client.post(url).bearer_auth(&self.token).json(body).send().await?;
        let (status, text) = (response.status(), response.text().await?);
        if !status.is_success() {
            bail!("POST {path}: {status}: {text}");
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// All items of a listing, page after page.
    ///
    /// # Errors
    /// When a page is refused.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                Some(cursor) => self.get(&format!("{path}{joint}cursor={cursor}")).await?,
                None => self.get(path).await?,
            };
            // `{"tickets": [..], "next": 41}`: the list is named after what it holds.
            let items = page.as_object().and_then(|fields| fields.values().find_map(Value::as_array));
            all.extend(items.with_context(|| format!("{path} has a list: {page}"))?.iter().cloned());
            match &page["next"] {
                Value::Null => return Ok(all),
                Value::String(next) => cursor = Some(next.clone()),
                next => cursor = Some(next.to_string()),
            }
        }
    }

    /// All tickets, newest first.
    ///
    /// # Errors
    /// When the listing is refused.
    pub async fn tickets(&self) -> Result<Vec<Value>> {
        self.list("/tickets").await
    }

    /// One ticket with grounds, clocks and timeline.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn ticket(&self, id: &str) -> Result<Value> {
        self.get(&format!("/tickets/{id}")).await
    }

    /// Waits until there is a ticket about `component`, and gives the newest.
    ///
    /// # Errors
    /// When none opens in time.
    pub async fn ticket_about(&self, component: &str) -> Result<Value> {
        eventually(&format!("a ticket about {component}"), crate::patience::A_WHILE, async || {
            Ok(self.tickets().await?.into_iter().find(|ticket| ticket["component"] == component))
        })
        .await
    }
}

/// The text between two marks.
#[must_use]
pub fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    text.split_once(open)?.1.split_once(close).map(|(inside, _)| inside)
}

fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
