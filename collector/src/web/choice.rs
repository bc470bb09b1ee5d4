//! Choosing a customer on a page: from all while they are few, otherwise from those that a part of the name finds. A page never
//! lists a thousand customers to show one.

use crate::customers::listing::{Wanted, page};
use crate::customers::{Customer, VENDOR_TENANT, store};
use crate::db::Conn;

/// Customers to choose from at once.
const FEW: usize = 20;

/// Who may be chosen, and who is.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    /// The id of the one chosen; empty: all.
    pub(crate) chosen: String,
    /// By name; the one chosen is among them.
    pub(crate) customers: Vec<Customer>,
    /// The name is to be typed, since there are too many for one list.
    pub(crate) many: bool,
    /// Not all that were found are listed.
    pub(crate) cut: bool,
    /// The part of a name or an id that was typed.
    pub(crate) find: String,
}

impl Choice {
    /// What was typed goes before what was chosen earlier, unless it finds that one too; if it finds one only, that is it.
    pub(crate) async fn load(conn: &mut Conn, chosen: Option<String>, find: Option<String>) -> Result<Self, sqlx::Error> {
        let (mut chosen, find) = (chosen.unwrap_or_default(), find.unwrap_or_default().trim().to_owned());
        let limit = i64::try_from(FEW + 1).unwrap_or(i64::MAX);
        let mut customers = page(conn, Wanted { find: &find, ..Wanted::default() }, limit).await?;
        let cut = customers.len() > FEW;
        customers.truncate(FEW);
        let is_listed = customers.iter().any(|customer| customer.tenant_id == chosen);
        if !find.is_empty() && !is_listed {
            chosen = if let [only] = customers.as_slice() { only.tenant_id.clone() } else { String::new() };
        } else if !is_listed && chosen != VENDOR_TENANT {
            customers.extend(store::customer(conn, &chosen).await?);
        }
        Ok(Self { chosen, many: cut || !find.is_empty(), cut, find, customers })
    }

    /// The one chosen; `None`: all.
    pub(crate) fn only(&self) -> Option<&str> {
        Some(self.chosen.as_str()).filter(|chosen| !chosen.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use mainstay_shared::time_source::UnixMs;

    use super::*;
    use crate::customers::Language;
    use crate::db::testing::both_databases;
    use crate::db::{Db, Turn, transact};

    both_databases!(of_many_customers_one_is_found_by_its_name);

    async fn fill(db: &Db, count: usize) -> anyhow::Result<()> {
        transact!(db, Turn::Console, |tx| {
            for n in 0..count {
                let (tenant_id, name) = (format!("c{n:02}"), format!("Customer {n:02}"));
                store::add_customer(tx, &Customer { tenant_id, name, language: Language::En, created_at: UnixMs(0) }).await?;
            }
            Ok(())
        });
        Ok(())
    }

    async fn seen(db: &Db, chosen: &str, find: &str) -> (String, usize, bool, bool) {
        let mut conn = db.read().await.expect("reads");
        let choice = Choice::load(&mut conn, Some(chosen.into()), Some(find.into())).await.expect("a choice");
        (choice.chosen, choice.customers.len(), choice.many, choice.cut)
    }

    async fn of_many_customers_one_is_found_by_its_name(db: Db) {
        fill(&db, 25).await.expect("fills");
        let rows = [
            ("nothing asked: the first of them", ("", ""), ("", 20, true, true)),
            ("one that is listed", ("c03", ""), ("c03", 20, true, true)),
            ("one that is not is added", ("c24", ""), ("c24", 21, true, true)),
            ("a name that several have", ("", "customer 0"), ("", 10, true, false)),
            ("one of those found", ("c07", "customer 0"), ("c07", 10, true, false)),
            ("what is typed goes before what was chosen", ("c07", "CUSTOMER 24"), ("c24", 1, true, false)),
            ("nobody", ("c07", "nobody"), ("", 0, true, false)),
        ];
        for (sentence, (chosen, find), (then, listed, many, cut)) in rows {
            assert_eq!(seen(&db, chosen, find).await, (then.to_owned(), listed, many, cut), "{sentence}");
        }
    }
}
