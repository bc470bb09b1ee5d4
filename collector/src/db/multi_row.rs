//! One statement for many rows: intake writes a batch of reports with a handful of statements. Chunks are powers of two, so that
//! few texts exist and each is prepared once per connection.
//!
//! It stands beside the stores and knows no table. Values are bound, never written into the text (R10).

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::Conn;

/// The widest chunk: 64 rows of 20 columns stay far below either database's limit of bound values.
const WIDEST: usize = 64;

/// A value to bind.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// TEXT.
    Text(String),
    /// BIGINT.
    Int(i64),
    /// BIGINT that may be absent.
    MaybeInt(Option<i64>),
    /// BYTEA.
    Blob(Vec<u8>),
}

/// Runs `INSERT INTO {into} VALUES (..),(..) {suffix}` over all rows. `into` and `suffix` are literals of the caller's.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn insert(
    tx: &mut Conn,
    into: &'static str,
    suffix: &'static str,
    rows: Vec<Vec<Value>>,
) -> Result<u64, sqlx::Error> {
    let mut taken = 0;
    let mut rest = rows.as_slice();
    while let Some(first) = rest.first() {
        let (chunk, after) = rest.split_at(chunk_width(rest.len()));
        let sql = format!("INSERT INTO {into} VALUES {} {suffix}", places(chunk.len(), first.len()));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for value in chunk.iter().flatten().cloned() {
            query = match value {
                Value::Text(text) => query.bind(text),
                Value::Int(number) => query.bind(number),
                Value::MaybeInt(number) => query.bind(number),
                Value::Blob(bytes) => query.bind(bytes),
            };
        }
        taken += query.execute(&mut *tx).await?.rows_affected();
        rest = after;
    }
    Ok(taken)
}

/// Runs `{select} IN (VALUES (..),(..))` for all text keys. `select` is a literal of the caller's, ending in the key's column list.
///
/// # Errors
/// If the database refuses.
pub(crate) async fn select(tx: &mut Conn, select: &'static str, keys: &[Vec<String>]) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut rows = Vec::new();
    let mut rest = keys;
    while let Some(first) = rest.first() {
        let (chunk, after) = rest.split_at(chunk_width(rest.len()));
        let sql = format!("{select} IN (VALUES {})", places(chunk.len(), first.len()));
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for key in chunk.iter().flatten() {
            query = query.bind(key.clone());
        }
        rows.extend(query.fetch_all(&mut *tx).await?);
        rest = after;
    }
    Ok(rows)
}

/// The largest power of two that is not above `rows` or [`WIDEST`].
fn chunk_width(rows: usize) -> usize {
    let mut width = WIDEST;
    while width > rows {
        width /= 2;
    }
    width
}

/// `($1, $2), ($3, $4)` for two rows of two columns.
fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", places.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_few_widths() {
        for (rows, width) in [(1, 1), (3, 2), (64, 64), (65, 64), (127, 64), (40, 32)] {
            assert_eq!(chunk_width(rows), width, "{rows} rows");
        }
        assert_eq!(places(2, 2), "($1, $2), ($3, $4)");
    }
}
