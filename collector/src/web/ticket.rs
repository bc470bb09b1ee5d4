//! A ticket's page: severity and why, its clock as a picture, the grounds, its faults, its story, the notices; and the acts as
//! forms. An act is handed to `flow::staff_acts`, which decides; the page only says what came of it.

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, Query, State};
use axum::response::Response;
use mainstay_shared::severity::{Attribution, BusinessImpact};
use mainstay_shared::time_source::UnixMs;
use serde::Deserialize;

use super::clock_view::{self, ClockView};
use super::grounds_view::{self, GroundsView};
use super::offers_view::{self, OfferLine};
use super::overview::{Named, Names};
use super::release;
use super::shell::{PageError, PageResult, Said, Shell, back_to, page, said};
use super::story_view::{self, Line};
use crate::api::access::{Principal, Viewer};
use crate::appliances::listing;
use crate::clocks;
use crate::customers::{Staff, store as people};
use crate::db::Conn;
use crate::faults::{self, Episode};
use crate::flow::file_is_offered::Wish;
use crate::flow::{World, staff_acts};
use crate::notices::listing::{NoticeLine, of_subject};
use crate::notices::patch_mail::title_of;
use crate::releases::{FileState, ReleaseFile, files, kind_name, offers, reports};
use crate::tickets::acts::{Act, By};
use crate::tickets::{ResponseWay, Ticket, TicketState, store};
use crate::words::{Words, when};

/// One run of a fault, as a line.
pub(crate) struct EpisodeRow {
    pub(crate) appliance: String,
    pub(crate) component: String,
    pub(crate) code: String,
    pub(crate) open: bool,
    pub(crate) summary: String,
    pub(crate) raised: String,
    pub(crate) cleared: String,
    pub(crate) lasted: String,
}

#[derive(Template)]
#[template(path = "ticket.html")]
struct TicketPage {
    shell: Shell,
    now: i64,
    said: Option<Said>,
    ticket: Ticket,
    state: &'static str,
    headline: String,
    /// Whose words the ticket's summary is.
    said_by: String,
    action: String,
    reason: String,
    customer: String,
    site: String,
    appliance: String,
    fault_at: String,
    opened_at: String,
    since: String,
    taken_by: String,
    assigned_to: String,
    clocks: Vec<ClockView>,
    grounds: GroundsView,
    episodes: Vec<EpisodeRow>,
    story: Vec<Line>,
    notices: Vec<(NoticeLine, String)>,
    works: bool,
    lowers: bool,
    closed: bool,
    impacts: &'static [BusinessImpact],
    attributions: &'static [Attribution],
    colleagues: Vec<Staff>,
    /// Why the file of the form before was not offered.
    outcomes: Vec<(String, String)>,
    offers: Vec<OfferLine>,
    /// Files that may be offered from here: name and label.
    files: Vec<(String, String)>,
}

/// The message of an act before.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct After {
    pub(crate) said: Option<String>,
    /// Words of refusals of an offer.
    pub(crate) not: Option<String>,
}

/// `GET /tickets/{ticket}`.
pub(crate) async fn show(
    State(world): State<World>,
    Extension(viewer): Extension<Viewer>,
    Extension(principal): Extension<Principal>,
    Path(ticket_id): Path<String>,
    Query(after): Query<After>,
) -> PageResult {
    let shell = Shell::of(&world, &viewer, &principal, "tickets", &format!("/tickets/{ticket_id}"));
    let (w, now) = (shell.w, world.time.now());
    let mut conn = world.db.snapshot().await?;
    let found = store::find(&mut conn, &ticket_id).await?.filter(|ticket| principal.sees(&ticket.tenant_id));
    let Some(ticket) = found else { return Err(PageError::NotFound(viewer.language)) };
    let (tenant, id) = (&ticket.tenant_id, &ticket.ticket_id);
    let clocks = clocks::store::of_ticket(&mut conn, tenant, id).await?;
    let episodes = faults::store::of_ticket(&mut conn, tenant, id).await?;
    let mut named = Named::default();
    named.tenants.insert(tenant.clone());
    named.sites.insert((tenant.clone(), ticket.site_id.clone()));
    named.appliances.extend(episodes.iter().map(|episode| episode.appliance_id.clone()).chain([ticket.appliance_id.clone()]));
    let names = Names::load(&mut conn, &named).await?;
    let (site, zone) = names.site(tenant, &ticket.site_id);
    let timeline = store::timeline(&mut conn, tenant, id).await?;
    let notices = of_subject(&mut conn, tenant, id).await?;
    let staff = people::all_staff(&mut conn).await?;
    let offers = offers::of_ticket(&mut conn, tenant, id).await?;
    let files = if ticket.appliance_id.is_empty() { Vec::new() } else { offered_files(&mut conn, w, &ticket).await? };
    let name_of = |id: &Option<String>| id.as_ref().and_then(|id| names.staff.get(id)).cloned().unwrap_or_default();
    let headline = ticket.headline(w, names.place(&ticket));
    page(&TicketPage {
        said: said(w, after.said.as_deref()),
        now: now.0,
        state: ticket.state.as_str(),
        said_by: w.of("said_by", &ticket.source).into_owned(),
        action: w.action(&ticket.code),
        reason: w.of("reason", &ticket.reason).into_owned(),
        customer: names.customer.get(tenant).cloned().unwrap_or_else(|| w.t("overview.internal").into_owned()),
        site,
        appliance: names.appliance.get(&ticket.appliance_id).cloned().unwrap_or_default(),
        fault_at: when::moment(ticket.fault_at, &zone),
        opened_at: when::moment(ticket.opened_at, &zone),
        since: when::lasting(w, ticket.recovered_at.or(ticket.closed_at).unwrap_or(now).since_ms(ticket.fault_at)),
        taken_by: name_of(&ticket.taken_by),
        assigned_to: name_of(&ticket.assigned_to),
        clocks: clocks.iter().rev().map(|clock| clock_view::view(w, clock, now, &zone)).collect(),
        grounds: grounds_view::view(w, &ticket.grounds, &zone),
        episodes: episodes.iter().map(|episode| episode_row(w, episode, &zone, &names, now)).collect(),
        story: story_view::lines(w, &timeline, &zone, &names.staff),
        notices: notices
            .into_iter()
            .map(|n| {
                let at = n.sent_at.map(|at| when::moment(at, &zone));
                (n, at.unwrap_or_default())
            })
            .collect(),
        works: principal.role.works_on_tickets(),
        lowers: principal.role.lowers_impact(),
        closed: ticket.state == TicketState::Closed,
        impacts: BusinessImpact::ALL,
        attributions: Attribution::ALL,
        outcomes: release::not_offered(w, after.not.as_deref().unwrap_or_default()),
        offers: offers.iter().map(|offer| offers_view::line(w, offer, "", "", &zone)).collect(),
        files,
        colleagues: staff.into_iter().filter(works).collect(),
        shell: shell.titled(format!("{id} {headline}")),
        headline,
        ticket,
    })
}

/// The good patches and actions for the ticket's appliance, by what it runs or was enrolled for.
async fn offered_files(conn: &mut Conn, w: Words, ticket: &Ticket) -> Result<Vec<(String, String)>, sqlx::Error> {
    let installed = reports::installed(conn, &ticket.tenant_id, &ticket.appliance_id).await?;
    let enrolled = listing::find(conn, &ticket.appliance_id).await?;
    let product = installed.map(|now| now.product).or(enrolled.map(|appliance| appliance.product)).unwrap_or_default();
    let fits = |file: &&ReleaseFile| {
        let is_its = file.manifest.as_ref().is_some_and(|manifest| manifest.product == product);
        file.state == FileState::Good && is_its && offers::needs_offer(file.kind())
    };
    let label = |file: &ReleaseFile| w.pair(&w.of("patch_kind", kind_name(file.kind())), &title_of(w, file));
    Ok(files::list(conn).await?.iter().filter(fits).map(|file| (file.file.clone(), label(file))).collect())
}

/// `POST /tickets/{ticket}/offers`: an action is run, or a patch offered, for the ticket's appliance.
pub(crate) async fn offer(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path(ticket_id): Path<String>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let page = format!("/tickets/{ticket_id}");
    let found = store::find(&mut *world.db.read().await?, &ticket_id).await?.filter(|ticket| principal.sees(&ticket.tenant_id));
    let Some(ticket) = found else { return Ok(back_to(&page, "refused_offer")) };
    let wish = Wish { appliances: vec![ticket.appliance_id], ticket_id, ..release::wish(fields) };
    release::offered(&world, &principal, &wish, &page).await
}

fn works(person: &Staff) -> bool {
    person.disabled_at.is_none() && person.role.works_on_tickets()
}

fn episode_row(w: Words, episode: &Episode, zone: &str, names: &Names, now: UnixMs) -> EpisodeRow {
    EpisodeRow {
        appliance: names.appliance.get(&episode.appliance_id).cloned().unwrap_or_default(),
        component: w.component(&episode.component),
        code: w.of("fault", &episode.code).into_owned(),
        open: episode.open,
        summary: episode.summary.clone(),
        raised: when::moment(episode.raised_at, zone),
        cleared: episode.cleared_at.map(|at| when::moment(at, zone)).unwrap_or_default(),
        lasted: when::lasting(w, episode.cleared_at.unwrap_or(now).since_ms(episode.raised_at)),
    }
}

/// What the page's forms send; which fields count depends on the act.
#[derive(Debug, Deserialize)]
pub(crate) struct ActForm {
    act: String,
    #[serde(default)]
    way: String,
    /// Note, reason or description.
    #[serde(default)]
    text: String,
    #[serde(default)]
    customer_word: String,
    #[serde(default)]
    to: String,
}

impl ActForm {
    /// The act that the form means; `None` for what none of our forms sends.
    fn read(self) -> Option<Act> {
        let way = [ResponseWay::Phone, ResponseWay::Mail, ResponseWay::OnSite, ResponseWay::Diagnosis]
            .into_iter()
            .find(|way| story_view::way_name(*way) == self.way);
        Some(match self.act.as_str() {
            "take" => Act::Take,
            "respond" => Act::Respond { way: way?, note: self.text },
            "assign" => Act::Assign { to_staff_id: self.to },
            "note" => Act::Note { text: self.text },
            "attribute" => Act::Attribute { attribution: Attribution::from_name(&self.to)?, why: self.text },
            "impact" => {
                Act::ChangeImpact { to: BusinessImpact::from_name(&self.to)?, why: self.text, customer_word: self.customer_word }
            }
            "close" => Act::Close { why: self.text },
            "reopen" => Act::Reopen { why: self.text },
            _ => return None,
        })
    }
}

/// Who acts, for the stories.
pub(crate) fn by(principal: &Principal) -> By {
    By { actor: principal.actor(), staff_id: principal.staff_id.clone(), name: principal.name.clone(), role: principal.role }
}

/// `POST /tickets/{ticket}/acts`.
pub(crate) async fn act(
    State(world): State<World>,
    Extension(principal): Extension<Principal>,
    Path(ticket_id): Path<String>,
    Form(form): Form<ActForm>,
) -> Result<Response, PageError> {
    let page = format!("/tickets/{ticket_id}");
    let Some(act) = form.read() else { return Ok(back_to(&page, "refused_bad_form")) };
    match staff_acts::act(&world, &by(&principal), &ticket_id, act).await? {
        Ok(_) => Ok(back_to(&page, "done_act")),
        Err(refused) => Ok(back_to(&page, &format!("refused_{}", refused.word()))),
    }
}
