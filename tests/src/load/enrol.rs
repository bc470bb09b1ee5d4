//! Thousands of appliances of many customers, each with its own key and certificate, enrolled through the front door.
//!
//! The collector lets one address enrol a hundred at once and then five a second: a fleet comes from many addresses, so ours
//! comes from 127.0.1.1, 127.0.1.2, and so on. Nothing is written past the collector.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use mainstay_shared::api::PATH_ENROL;
use mainstay_shared::enrolment::{EnrolReply, JoinString};
use rcgen::KeyPair;
use reqwest::Client;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::browser::install_crypto;
use crate::collector::Collector;
use crate::wire::{enrol_request, send};

/// Enrolments that one address makes.
const AN_ADDRESS: usize = 90;
/// Addresses that enrol at the same time.
const AT_ONCE: usize = 4;

/// What an appliance shows and trusts: its TLS.
///
/// # Errors
/// When certificate and key don't fit.
pub fn client_tls(chain_pem: &str, roots_pem: &str, key: &KeyPair) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root.ok().context("a root in PEM")?)?;
    }
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().ok().context("PEM")?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?)
}

/// Makes `customers` customers with a site each and enrols `appliances` appliances, dealt evenly.
///
/// # Errors
/// When the collector refuses.
pub async fn fleet(collector: &Collector, customers: usize, appliances: usize) -> Result<Vec<ClientConfig>> {
    install_crypto();
    let address = collector.agents_listen();
    let each = appliances.div_ceil(customers);
    let mut joins = Vec::new();
    for customer in 0..customers {
        joins.push(Arc::new(customer_join(collector, &format!("bank-{customer:03}"), each).await?));
    }
    let by_address = (0..appliances.div_ceil(AN_ADDRESS)).map(|from| {
        let numbers: Vec<usize> = (from * AN_ADDRESS..appliances.min((from + 1) * AN_ADDRESS)).collect();
        enrol_from(from, address, numbers, &joins)
    });
    let fleet: Vec<Vec<ClientConfig>> = futures_util::stream::iter(by_address).buffered(AT_ONCE).try_collect().await?;
    Ok(fleet.into_iter().flatten().collect())
}

async fn customer_join(collector: &Collector, name: &str, uses: usize) -> Result<JoinString> {
    let uses = uses.to_string();
    let token = ["join-token", "create", "--customer", name, "--site", "hq", "--product", "gateway", "--duty", "single"];
    for made in [
        ["customer", "add", name, "--name", name].as_slice(),
        &["site", "add", "hq", "--customer", name, "--name", "HQ", "--city", "重庆", "--time-zone", "Asia/Shanghai"],
    ] {
        collector.command(made).await?.good().with_context(|| made.join(" "))?;
    }
    let printed = collector.command(&[token.as_slice(), &["--uses", &uses]].concat()).await?.good()?;
    Ok(printed.stdout.trim().parse()?)
}

async fn enrol_from(from: usize, to: SocketAddr, numbers: Vec<usize>, joins: &[Arc<JoinString>]) -> Result<Vec<ClientConfig>> {
    let low = u8::try_from(from % 250 + 1)?;
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, u8::try_from(from / 250 + 1)?, low));
    let client = Client::builder().tls_danger_accept_invalid_certs(true).local_address(address).no_proxy().build()?;
    let mut enrolled = Vec::with_capacity(numbers.len());
    for number in numbers {
        let join = &joins[number % joins.len()];
        let (request, key) = enrol_request(join, &format!("load-{number}"), &format!("SN-{number}"))?;
        let (url, body) = (format!("https://{to}{PATH_ENROL}"), serde_json::to_vec(&request)?);
        let mut answer = send(&client, &url, body.clone(), None).await?;
        // Told to come later, an agent asks again with the same attempt.
        while answer.retry_after_s.is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = send(&client, &url, body.clone(), None).await?;
        }
        let reply: EnrolReply = answer.good()?;
        enrolled.push(client_tls(&reply.chain_pem, &reply.roots_pem, &key)?);
    }
    Ok(enrolled)
}
