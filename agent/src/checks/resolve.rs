//! Names into addresses, aside: the system's resolver blocks its thread for as long as it likes.
//!
//! One question per check is under way at most. An address needs no resolver and never waits for one.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::probes::aside::{Aside, AsideError};

/// Longer than the system's resolver takes to give up; the check's own limit is usually shorter.
const LIMIT: Duration = Duration::from_secs(60);

/// A name has no address, or nobody could say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unresolved {
    /// The resolver said no.
    #[error("{0} has no address")]
    NoAddress(String, #[source] Option<std::io::Error>),
    /// The resolver said nothing.
    #[error("the resolver gave no answer")]
    NoAnswer(#[from] AsideError),
}

/// The addresses of `host` with `port`; `object` is what hangs if the resolver does.
pub(crate) async fn resolve(aside: &Aside, object: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, Unresolved> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = bare.to_owned();
    let look_up = move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
    match aside.run(object, LIMIT, look_up).await? {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Ok(_) => Err(Unresolved::NoAddress(bare.to_owned(), None)),
        Err(error) => Err(Unresolved::NoAddress(bare.to_owned(), Some(error))),
    }
}

/// The same for the web client.
#[derive(Debug, Clone)]
pub(crate) struct AsideResolver {
    pub(crate) aside: Aside,
    pub(crate) object: String,
}

impl Resolve for AsideResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { aside, object } = self.clone();
        Box::pin(async move {
            let addresses = resolve(&aside, &object, name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
