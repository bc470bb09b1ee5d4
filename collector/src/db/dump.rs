//! Every table as lines of JSON, and back: the engine-neutral form that `backup` and `restore` carry between databases.
//!
//! A table line names its columns; each row line is an array. Texts are strings, numbers are numbers, blobs are `{"b64": ..}`.
//! Names of tables come from [`TABLES`], names of columns from the database's own catalogue: never from a file (R10).

use std::io::Write;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{Conn, Db, Engine};

/// All tables, those that others refer to first. A test compares the list with the schema.
pub(crate) const TABLES: [&str; 35] = [
    "collector",
    "counters",
    "customers",
    "sites",
    "contacts",
    "staff",
    "customer_staff",
    "sessions",
    "api_tokens",
    "join_tokens",
    "appliances",
    "certificates",
    "renewal_requests",
    "links",
    "lane_marks",
    "fault_records",
    "gaps",
    "samples",
    "declared_services",
    "service_groups",
    "service_group_members",
    "tickets",
    "episodes",
    "clocks",
    "clock_policies",
    "events",
    "outbox",
    "release_files",
    "online_metadata",
    "signing_expiry",
    "entitlements",
    "installed",
    "offers",
    "patch_reports",
    "offer_links",
];

/// Tables whose rows a restored collector starts without.
#[cfg(test)]
const LEFT_OUT: [&str; 3] = ["directives", "leases", "repository_problems"];

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Int,
    Text,
    Blob,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    name: String,
    holds: Holds,
}

/// The columns of a table, in its own order.
///
/// # Errors
/// If a column has a type that the schema's rules do not allow.
pub(crate) async fn columns(conn: &mut Conn, engine: Engine, table: &str) -> anyhow::Result<Vec<Column>> {
    let sql = match engine {
        Engine::Sqlite => "SELECT name AS name, type AS kind FROM pragma_table_info($1) ORDER BY cid",
        Engine::Postgres => {
            "SELECT CAST(column_name AS TEXT) AS name, CAST(data_type AS TEXT) AS kind FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
        }
    };
    let rows = sqlx::query(sql).bind(table.to_owned()).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let (name, kind): (String, String) = (row.try_get("name")?, row.try_get("kind")?);
            let holds = match kind.to_ascii_uppercase().as_str() {
                "BIGINT" => Holds::Int,
                "TEXT" => Holds::Text,
                "BYTEA" => Holds::Blob,
                _ => anyhow::bail!("column {table}.{name} holds {kind}: expected BIGINT, TEXT or BYTEA"),
            };
            Ok(Column { name, holds })
        })
        .collect()
}

/// Writes a table's line and its rows, one at a time, as `conn`'s snapshot sees them. Answers how many rows.
///
/// # Errors
/// If the database or `out` refuses.
pub(crate) async fn write_table(
    conn: &mut Conn,
    engine: Engine,
    table: &'static str,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let columns = columns(conn, engine, table).await?;
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    writeln!(out, "{}", json!({ "table": table, "columns": names }))?;
    let sql = format!("SELECT {} FROM {table}", names.join(", "));
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(conn);
    let mut count = 0;
    while let Some(row) = rows.try_next().await.with_context(|| format!("reading {table}"))? {
        let values = columns.iter().enumerate().map(|(at, column)| value_of(&row, at, column)).collect::<Result<Vec<_>, _>>()?;
        writeln!(out, "{}", Value::Array(values))?;
        count += 1;
    }
    Ok(count)
}

fn value_of(row: &AnyRow, at: usize, column: &Column) -> Result<Value, sqlx::Error> {
    Ok(match column.holds {
        Holds::Int => row.try_get::<Option<i64>, _>(at)?.map_or(Value::Null, Value::from),
        Holds::Text => row.try_get::<Option<String>, _>(at)?.map_or(Value::Null, Value::from),
        Holds::Blob => {
            row.try_get::<Option<Vec<u8>>, _>(at)?.map_or(Value::Null, |bytes| json!({ "b64": STANDARD.encode(bytes) }))
        }
    })
}

/// A table that rows are put back into.
#[derive(Debug)]
pub(crate) struct Target {
    table: &'static str,
    columns: Vec<Column>,
    sql: String,
}

impl Target {
    /// Reads a table line, as it stands in the backup, against this database.
    ///
    /// # Errors
    /// If the table or one of its columns is not known here: the backup is newer than this program.
    pub(crate) async fn open(conn: &mut Conn, engine: Engine, table: &str, names: &[String]) -> anyhow::Result<Self> {
        let table = TABLES
            .into_iter()
            .find(|known| *known == table)
            .with_context(|| format!("table {table:?} is not known: the backup was made by a newer collector"))?;
        let known = columns(conn, engine, table).await?;
        let columns =
            names
                .iter()
                .map(|name| {
                    known.iter().find(|column| &column.name == name).cloned().with_context(|| {
                        format!("column {name:?} of {table} is not known: the backup was made by a newer collector")
                    })
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
        let list: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let places: Vec<String> = (1..=columns.len()).map(|place| format!("${place}")).collect();
        let sql = format!("INSERT INTO {table} ({}) VALUES ({})", list.join(", "), places.join(", "));
        Ok(Self { table, columns, sql })
    }

    /// Puts one row back.
    ///
    /// # Errors
    /// If the row does not fit the table or the database refuses it.
    pub(crate) async fn insert(&self, tx: &mut Conn, values: &[Value]) -> anyhow::Result<()> {
        anyhow::ensure!(values.len() == self.columns.len(), "a row of {} has {} values", self.table, values.len());
        let mut query = sqlx::query(AssertSqlSafe(self.sql.clone()));
        for (column, value) in self.columns.iter().zip(values) {
            let misfit = || format!("{}.{}: a value of another kind", self.table, column.name);
            query = match (column.holds, value) {
                (Holds::Int, Value::Null) => query.bind(None::<i64>),
                (Holds::Text, Value::Null) => query.bind(None::<String>),
                (Holds::Blob, Value::Null) => query.bind(None::<Vec<u8>>),
                (Holds::Int, value) => query.bind(value.as_i64().with_context(misfit)?),
                (Holds::Text, value) => query.bind(value.as_str().with_context(misfit)?.to_owned()),
                (Holds::Blob, value) => {
                    let text = value.get("b64").and_then(Value::as_str).with_context(misfit)?;
                    query.bind(STANDARD.decode(text).with_context(misfit)?)
                }
            };
        }
        query.execute(tx).await.with_context(|| format!("putting a row back into {}", self.table)).map(drop)
    }
}

/// Whether no table holds a row.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn is_empty(db: &Db) -> Result<bool, sqlx::Error> {
    let mut conn = db.read().await?;
    for table in TABLES {
        let found: Option<i64> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT CAST(1 AS BIGINT) FROM {table} LIMIT 1")))
            .fetch_optional(&mut *conn)
            .await?;
        if found.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_schema_is_kept_or_left_out_on_purpose() {
        let schema = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).expect("the migrations");
        let mut created: Vec<String> = Vec::new();
        for file in schema {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("readable");
            created
                .extend(text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split(' ').next().map(str::to_owned)));
        }
        let mut listed: Vec<String> = TABLES.iter().chain(&LEFT_OUT).map(ToString::to_string).collect();
        created.sort();
        listed.sort();
        assert_eq!(created, listed);
    }
}
