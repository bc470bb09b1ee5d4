//! A person's authenticator and account: user name, password, and the six digits of RFC 6238.
//! A code counts once, and the collector takes one a step early or late: so a person who needs several in a row need not wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use mainstay_shared::time_source::TimeSource;
use totp_rs::{Algorithm, Builder};

use crate::patience::eventually;

const STEP_S: u64 = 30;

/// An account's way in, as it was printed once.
#[derive(Debug, Clone, Default)]
pub struct SignIn {
    /// The account's name.
    pub username: String,
    /// The generated password.
    pub password: String,
    /// The TOTP secret, base32.
    pub totp_secret: String,
    /// Its role, as the command line spells it.
    pub role: String,
    /// How far the authenticator's clock is off, in seconds, as the collector's own is.
    pub clock_offset_s: i64,
    used_step: Arc<AtomicU64>,
}

impl SignIn {
    /// Reads what `init --json` and `user add --json` print.
    ///
    /// # Errors
    /// Names the missing field.
    pub fn printed(username: &str, role: &str, json: &str) -> Result<Self> {
        let made: serde_json::Value = serde_json::from_str(json).with_context(|| format!("a new account: {json}"))?;
        let field = |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("a new account has a {name}"));
        Ok(Self {
            username: username.to_owned(),
            password: field("password")?,
            totp_secret: field("totp_secret")?,
            role: role.to_owned(),
            clock_offset_s: 0,
            used_step: Arc::default(),
        })
    }

    /// Six digits that were not shown before and that the collector takes now. Waits only where three in a row were used up.
    ///
    /// # Errors
    /// When the secret is none.
    pub async fn next_code(&self) -> Result<String> {
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_secret(base32(&self.totp_secret)?)
            .build()
            .context("a TOTP secret")?;
        let step = eventually("a code that was not used", Duration::from_secs(70), async || {
            let now_s = u64::try_from(TimeSource::system().now().0 / 1000 + self.clock_offset_s)?;
            let used = self.used_step.load(Ordering::SeqCst);
            // The step before counts to the end of this one; with few seconds left it may come too late.
            let earliest = now_s / STEP_S - u64::from(now_s % STEP_S < STEP_S - 5);
            let step = earliest.max(used + 1);
            Ok((step <= now_s / STEP_S + 1).then_some(step))
        })
        .await?;
        self.used_step.store(step, Ordering::SeqCst);
        Ok(totp.generate(step * STEP_S).to_string())
    }
}

fn base32(text: &str) -> Result<Vec<u8>> {
    let (mut bits, mut length, mut out) = (0u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".iter().position(|c| *c == letter).context("base32")?;
        bits = (bits << 5) | u32::try_from(value)?;
        length += 5;
        if length >= 8 {
            length -= 8;
            out.push(u8::try_from((bits >> length) & 0xff)?);
        }
    }
    Ok(out)
}
