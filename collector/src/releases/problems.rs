//! What is wrong with the repository, as the node that reads it last saw it: for the page, and by mail to the operators once it lasts.

use mainstay_shared::time_source::UnixMs;
use sqlx::Row as _;

use crate::db::Conn;

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The place, or a file in it, can't be read.
    Unreadable,
    /// Signed metadata that does not verify: the version before stands.
    MetadataRefused,
    /// Metadata is older than what was named before.
    WentBack,
    /// The root does not list this collector's online keys.
    KeysNotListed,
    /// A file was published again under its name with other content.
    Republished,
    /// Snapshot and timestamp are due and could not be signed.
    NotSigned,
}

impl What {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Unreadable, Self::MetadataRefused, Self::WentBack, Self::KeysNotListed, Self::Republished, Self::NotSigned];

    /// The name in the database and in text keys.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::MetadataRefused => "metadata_refused",
            Self::WentBack => "went_back",
            Self::KeysNotListed => "keys_not_listed",
            Self::Republished => "republished",
            Self::NotSigned => "not_signed",
        }
    }
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub(crate) what: What,
    /// The file's name, or what else it is about.
    pub(crate) about: String,
    /// For the release engineer: as the verifier or the place says it.
    pub(crate) why: String,
}

impl Problem {
    /// A problem, its words bounded.
    pub(crate) fn new(what: What, about: &str, why: &str) -> Self {
        Self { what, about: about.to_owned(), why: why.chars().take(500).collect() }
    }
}

/// A problem as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) problem: Problem,
    pub(crate) since_at: UnixMs,
    /// When the operators were told.
    pub(crate) told_at: Option<UnixMs>,
}

/// All of them, the oldest first.
pub(crate) async fn list(conn: &mut Conn) -> Result<Vec<Kept>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM repository_problems ORDER BY since_at, what, about").fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let what: String = row.try_get("what")?;
            let what = What::ALL.into_iter().find(|one| one.as_str() == what).unwrap_or(What::Unreadable);
            let problem = Problem { what, about: row.try_get("about")?, why: row.try_get("why")? };
            let told_at: Option<i64> = row.try_get("told_at")?;
            Ok(Kept { problem, since_at: UnixMs(row.try_get("since_at")?), told_at: told_at.map(UnixMs) })
        })
        .collect()
}

/// Writes one that was seen now; one that is known keeps its beginning.
pub(crate) async fn put(tx: &mut Conn, problem: &Problem, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO repository_problems (what, about, why, since_at, told_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (what, about) DO UPDATE SET why = excluded.why",
    )
    .bind(problem.what.as_str())
    .bind(&problem.about)
    .bind(&problem.why)
    .bind(now.0)
    .bind(None::<i64>)
    .execute(tx)
    .await
    .map(drop)
}

/// Removes one that is over.
pub(crate) async fn remove(tx: &mut Conn, problem: &Problem) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM repository_problems WHERE what = $1 AND about = $2")
        .bind(problem.what.as_str())
        .bind(&problem.about)
        .execute(tx)
        .await
        .map(drop)
}

/// Notes that the operators were told.
pub(crate) async fn told(tx: &mut Conn, problem: &Problem, now: UnixMs) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE repository_problems SET told_at = $3 WHERE what = $1 AND about = $2")
        .bind(problem.what.as_str())
        .bind(&problem.about)
        .bind(now.0)
        .execute(tx)
        .await
        .map(drop)
}
