//! One statement for many rows: intake reads and writes a batch of reports with a handful of statements. A chunk is a multiple of
//! eight rows or less than eight, so that few texts exist and each is prepared once per connection.
//!
//! It stands beside the stores and knows no table. Values are bound, never written into the text (R10).

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::Conn;

/// The widest chunk: 64 rows of 20 columns stay far below either database's limit of bound values.
const WIDEST: usize = 64;
/// Wider than this, chunks come in steps of as many.
const STEP: usize = 8;

/// A value to bind.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// TEXT.
    Text(String),
    /// BIGINT.
    Int(i64),
    /// BYTEA.
    Blob(Vec<u8>),
}

/// How an engine wants places for values and rows as one text.
struct Dialect {
    is_sqlite: bool,
}

impl Dialect {
    fn of(conn: &Conn) -> Self {
        Self { is_sqlite: conn.backend_name() == "SQLite" }
    }

    /// `($1, $2), ($3, $4)` for two rows of two columns; `and` ends each row. SQLite gets `?`: it would search all numbered places
    /// for each value.
    fn places(&self, rows: usize, columns: usize, and: &str) -> String {
        let mut text = String::with_capacity(rows * (columns * 6 + and.len() + 4));
        for row in 0..rows {
            for column in 1..=columns {
                text.push_str(if column > 1 {
                    ", "
                } else if row > 0 {
                    ", ("
                } else {
                    "("
                });
                if self.is_sqlite {
                    text.push('?');
                } else {
                    text.push('$');
                    text.push_str(&(row * columns + column).to_string());
                }
            }
            text.push_str(and);
            text.push(')');
        }
        text
    }

    /// All rows as one JSON text, which crosses from the database's thread once.
    fn all_rows(&self, columns: &str) -> String {
        if self.is_sqlite {
            format!("SELECT json_group_array(json_array({columns}))")
        } else {
            format!("SELECT CAST(json_agg(json_build_array({columns})) AS TEXT)")
        }
    }
}

/// Runs `INSERT INTO {into} VALUES (..{and}),(..{and}) {suffix}` over all rows. `into`, `and` and `suffix` are literals of the caller's.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn insert(
    tx: &mut Conn,
    into: &'static str,
    and: &'static str,
    suffix: &'static str,
    rows: Vec<Vec<Value>>,
) -> Result<(), sqlx::Error> {
    let dialect = Dialect::of(tx);
    let mut rest = rows.into_iter();
    while let Some(columns) = rest.as_slice().first().map(Vec::len) {
        let width = chunk_width(rest.len());
        let sql = format!("INSERT INTO {into} VALUES {} {suffix}", dialect.places(width, columns, and));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for value in rest.by_ref().take(width).flatten() {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Int(number) => query.bind(number),
                Value::Blob(bytes) => query.bind(bytes),
            };
        }
        query.execute(&mut *tx).await?;
    }
    Ok(())
}

/// Runs `{select} IN (VALUES (..),(..))` for all text keys. `select` is a literal of the caller's, ending in the key's column list.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn select(tx: &mut Conn, select: &'static str, keys: &[Vec<String>]) -> Result<Vec<AnyRow>, sqlx::Error> {
    let dialect = Dialect::of(tx);
    let mut rows = Vec::new();
    for chunk in keys.chunks(WIDEST) {
        rows.extend(keyed(select, &dialect, chunk).fetch_all(&mut *tx).await?);
    }
    Ok(rows)
}

/// Like [`select`], for what every batch reads: all rows cross as one text instead of one by one, which costs a turn of two
/// threads each on SQLite. `columns` and `from` are literals of the caller's; a row becomes a tuple.
///
/// # Errors
/// If the database refuses, or a row is not such a tuple.
pub(crate) async fn tuples<T: DeserializeOwned>(
    tx: &mut Conn,
    columns: &'static str,
    from: &'static str,
    keys: &[Vec<String>],
) -> anyhow::Result<Vec<T>> {
    let dialect = Dialect::of(tx);
    let select = format!("{} {from}", dialect.all_rows(columns));
    let mut rows = Vec::new();
    for chunk in keys.chunks(WIDEST) {
        let row = keyed(&select, &dialect, chunk).fetch_one(&mut *tx).await?;
        let json: Option<String> = sqlx::Row::try_get(&row, 0)?;
        let found: Vec<T> = serde_json::from_str(json.as_deref().unwrap_or("[]")).context("rows as JSON")?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The last key again and again fills a chunk up: it asks for nothing new.
fn keyed<'q>(
    select: &str,
    dialect: &Dialect,
    chunk: &[Vec<String>],
) -> sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments> {
    let width = if chunk.len() < STEP { chunk.len() } else { chunk.len().next_multiple_of(STEP) };
    let columns = chunk.first().map_or(0, Vec::len);
    let sql = format!("{select} IN (VALUES {})", dialect.places(width, columns, ""));
    let filled = chunk.iter().chain(std::iter::repeat(&chunk[chunk.len() - 1])).take(width);
    filled.flatten().fold(sqlx::query(AssertSqlSafe(sql)), |query, key| query.bind(key.clone()))
}

/// The widest chunk for so many rows.
fn chunk_width(rows: usize) -> usize {
    if rows < STEP { rows } else { rows.min(WIDEST) / STEP * STEP }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_few_widths() {
        for (rows, width) in [(1, 1), (3, 3), (64, 64), (65, 64), (127, 64), (47, 40)] {
            assert_eq!(chunk_width(rows), width, "{rows} rows");
        }
        let (postgres, sqlite) = (Dialect { is_sqlite: false }, Dialect { is_sqlite: true });
        assert_eq!(postgres.places(2, 2, ""), "($1, $2), ($3, $4)");
        assert_eq!(postgres.places(2, 1, ", 0"), "($1, 0), ($2, 0)");
        assert_eq!(sqlite.places(2, 2, ", 0"), "(?, ?, 0), (?, ?, 0)");
    }
}
