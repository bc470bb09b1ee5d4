//! Passwords (argon2id) and one-time codes (TOTP, RFC 6238): made, checked, never shown twice.
//!
//! Pure but for the randomness handed in. Nothing here may log or format a secret but for the person who gets it (R33).

use anyhow::Context as _;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use mainstay_shared::time_source::UnixMs;
use ring::rand::SecureRandom;
use totp_rs::{Builder, Secret, Totp};

/// The least length of a password that a person chooses, in characters.
pub(crate) const MIN_PASSWORD_CHARS: usize = 12;

/// No letter that is taken for another one: read aloud and typed by hand.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";

/// Why a one-time code does or does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CodeVerdict {
    /// Right, and of this step, which must be stored as used.
    Right { step: i64 },
    /// Right, but its step was used before (RFC 6238, 5.2).
    Used,
    /// Wrong.
    Wrong,
}

/// A fresh password of 100 random bits.
pub(crate) fn new_password(rng: &dyn SecureRandom) -> anyhow::Result<String> {
    let mut bytes = [0u8; 20];
    rng.fill(&mut bytes).ok().context("the system's random generator failed")?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

/// A fresh TOTP secret, base32.
pub(crate) fn new_totp_secret(rng: &dyn SecureRandom) -> anyhow::Result<String> {
    let mut bytes = [0u8; 20];
    rng.fill(&mut bytes).ok().context("the system's random generator failed")?;
    Ok(Secret::from(bytes).to_base32())
}

/// The argon2id hash of a password, as a PHC string. Takes tens of milliseconds: not within a transaction.
pub(crate) fn hash_password(password: &str) -> anyhow::Result<String> {
    let hash =
        Argon2::default().hash_password(password.as_bytes()).map_err(|error| anyhow::anyhow!("hashing a password: {error}"))?;
    Ok(hash.to_string())
}

/// Whether `password` has the hash `hash`. A hash that can't be read matches nothing.
pub(crate) fn password_matches(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
}

/// Judges a one-time code: 6 digits, 30 s, one step of tolerance to either side, each step once.
pub(crate) fn check_code(secret: &str, code: &str, last_step: i64, now: UnixMs) -> CodeVerdict {
    let (Ok(totp), Ok(now_s)) = (totp("", secret, None), u64::try_from(now.0 / 1000)) else { return CodeVerdict::Wrong };
    match totp.check(code.trim(), now_s).and_then(|step| i64::try_from(step).ok()) {
        Some(step) if step > last_step => CodeVerdict::Right { step },
        Some(_) => CodeVerdict::Used,
        None => CodeVerdict::Wrong,
    }
}

/// The address that an authenticator application takes in.
pub(crate) fn otpauth_address(service_name: &str, username: &str, secret: &str) -> anyhow::Result<String> {
    let issuer = service_name.replace(':', " ");
    totp(username, secret, Some(issuer))?.to_url().map_err(|error| anyhow::anyhow!("writing an otpauth address: {error}"))
}

fn totp(username: &str, secret: &str, issuer: Option<String>) -> anyhow::Result<Totp> {
    let secret = Secret::try_from_base32(secret).map_err(|_| anyhow::anyhow!("a TOTP secret that is not base32"))?;
    Builder::new()
        .with_secret(secret)
        .with_account_name(username)
        .with_issuer(issuer)
        .build()
        .map_err(|error| anyhow::anyhow!("a TOTP secret that can't be used: {error}"))
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_and_no_other() {
        let hash = hash_password("correct horse battery").expect("hashes");
        assert!(hash.starts_with("$argon2id$"));
        assert!(password_matches("correct horse battery", &hash));
        assert!(!password_matches("correct horse", &hash) && !password_matches("x", "no hash"));
    }

    #[test]
    fn a_code_counts_once_and_one_step_early_or_late() {
        let secret = new_totp_secret(&SystemRandom::new()).expect("a secret");
        let now = UnixMs(1_800_000_000_000);
        let code = totp("", &secret, None).expect("usable").generate(1_800_000_000).to_string();
        let step = 1_800_000_000 / 30;
        for (at, last_step, expected) in [
            (now, 0, CodeVerdict::Right { step }),
            (now.plus_ms(30_000), 0, CodeVerdict::Right { step }),
            (now, step, CodeVerdict::Used),
            (now.plus_ms(90_000), 0, CodeVerdict::Wrong),
        ] {
            assert_eq!(check_code(&secret, &code, last_step, at), expected, "{at}");
        }
        assert_eq!(check_code(&secret, "", 0, now), CodeVerdict::Wrong);
    }

    #[test]
    fn the_otpauth_address_names_service_and_account() {
        let secret = new_totp_secret(&SystemRandom::new()).expect("a secret");
        let address = otpauth_address("Mainstay", "li.wei", &secret).expect("an address");
        assert!(address.starts_with("otpauth://totp/Mainstay:li.wei?") && address.contains(&secret), "{address}");
    }
}
