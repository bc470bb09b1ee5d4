//! Opening a ticket for a customer who called: C9 wants a detailed description, C1 the one question, is your business interrupted?

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Query, State};
use mainstay_shared::severity::BusinessImpact;
use serde::Deserialize;

use super::choice::Choice;
use super::shell::{PageResult, Said, Shell, back_to, page, said};
use super::ticket::by;
use crate::api::access::{Principal, Viewer};
use crate::appliances;
use crate::customers::store;
use crate::flow::World;
use crate::flow::staff_acts::{CustomerRequest, open_for_customer};

struct Place {
    /// `TENANT/SITE`, or `TENANT/SITE/APPLIANCE`.
    value: String,
    label: String,
}

/// Appliances from which one is chosen at once.
const MANY: i64 = 500;

#[derive(Template)]
#[template(path = "open_ticket.html")]
struct OpenPage {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    /// Too many places for one list: the customer is chosen first.
    choose: bool,
    choice: Choice,
    places: Vec<Place>,
    impacts: &'static [BusinessImpact],
    given: CallForm,
}

/// What the form sends.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct CallForm {
    /// Whose places are shown.
    #[serde(default)]
    customer: String,
    #[serde(default)]
    find: String,
    #[serde(default)]
    place: String,
    #[serde(default)]
    impact: String,
    #[serde(default)]
    summary: String,
}

async fn form(world: &World, viewer: &Viewer, principal: &Principal, given: CallForm, word: Option<&str>) -> PageResult {
    let shell = Shell::of(world, viewer, principal, "open", "/tickets/open");
    let mut conn = world.db.snapshot().await?;
    let choice = Choice::load(&mut conn, Some(given.customer.clone()), Some(given.find.clone())).await?;
    // A large fleet's list helps nobody: the customer is chosen first, then its places are shown.
    let boxes = match (choice.only(), choice.many) {
        (None, true) => Vec::new(),
        (only, _) => appliances::listing::list(&mut conn, only, "", MANY).await?,
    };
    let few = !choice.many && i64::try_from(boxes.len()).is_ok_and(|count| count < MANY);
    let shown = |id: &str| choice.only().map_or(few, |chosen| chosen == id);
    let mut places = Vec::new();
    for customer in choice.customers.iter().filter(|customer| shown(&customer.tenant_id)) {
        for site in store::sites(&mut conn, &customer.tenant_id).await? {
            let (value, label) = (format!("{}/{}", site.tenant_id, site.site_id), format!("{} / {}", customer.name, site.name));
            let at_site = boxes.iter().filter(|a| a.tenant_id == site.tenant_id && a.site_id == site.site_id);
            let inside: Vec<Place> = at_site
                .map(|a| Place { value: format!("{value}/{}", a.appliance_id), label: format!("{label} / {}", a.name) })
                .collect();
            places.push(Place { value, label });
            places.extend(inside);
        }
    }
    let title = shell.w.t("open.title");
    page(&OpenPage {
        said: said(shell.w, word),
        now: world.time.now().0,
        shell: shell.titled(title),
        choose: !few || choice.only().is_some(),
        choice,
        places,
        impacts: BusinessImpact::ALL,
        given,
    })
}

/// `GET /tickets/open`.
pub(crate) async fn ask(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Query(given): Query<CallForm>,
) -> PageResult {
    form(&world, &viewer, &principal, given, None).await
}

/// `POST /tickets/open`.
pub(crate) async fn open(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Form(given): Form<CallForm>,
) -> PageResult {
    let mut place = given.place.splitn(3, '/').map(str::to_owned);
    let (Some(tenant_id), Some(site_id), Some(impact)) = (place.next(), place.next(), BusinessImpact::from_name(&given.impact))
    else {
        return form(&world, &viewer, &principal, given, Some("refused_bad_form")).await;
    };
    let request = CustomerRequest {
        tenant_id,
        site_id,
        appliance_id: place.next().unwrap_or_default(),
        summary: given.summary.trim().to_owned(),
        impact,
    };
    match open_for_customer(&world, &by(&principal), request).await? {
        Ok(ticket) => Ok(back_to(&format!("/tickets/{}", ticket.ticket_id), "done_opened")),
        Err(refused) => {
            let word = format!("refused_{}", refused.word());
            form(&world, &viewer, &principal, given, Some(&word)).await
        }
    }
}
