//! The scene of a decision: a customer's living tickets, their episodes, and the appliances, services and groups that these or the
//! story touch, at one moment, loaded once.
//!
//! Used by every story that brings faults (an agent's report, the collector's own findings, silence). It asks the pure rules and
//! writes through `record`; it decides nothing itself. Kept up to date as changes are taken, so that a batch sees its own effects.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use mainstay_shared::fault::{FaultChangeKind, FaultKey};
use mainstay_shared::severity::BusinessImpact;
use mainstay_shared::time_source::UnixMs;

use super::record::{Desk, happened, opens};
use super::told::{Told, cleared, is_of, joined, new_ticket, reopened, same_episode};
use crate::db::{Conn, next_number};
use crate::faults::landscape::{self, Landscape};
use crate::faults::rules::{Begin, Step, judge};
use crate::faults::{CODE_SITE_SILENT, Episode, store as faults};
use crate::tickets::rules::{Action, Arriving, Candidate, OpenReason, Regrade, SameCause, place, regrade, weigh};
use crate::tickets::severity::Reason;
use crate::tickets::{Ticket, TicketEvent, TicketState, grounds, store as tickets};

/// All that decisions about one customer's faults rest on, at one moment.
pub(super) struct Scene {
    pub(super) landscape: Landscape,
    pub(super) candidates: Vec<Candidate>,
    /// Tickets of which an episode cleared just now: only they can recover; one that a person reopened waits for a person.
    relieved: BTreeSet<String>,
}

impl Scene {
    /// `about`: the appliances that the story tells of.
    pub(super) async fn load(
        tx: &mut Conn,
        desk: Desk<'_>,
        tenant_id: &str,
        mut about: BTreeSet<String>,
    ) -> anyhow::Result<Self> {
        let window_ms = i64::try_from(desk.config.flap_window.as_millis()).unwrap_or(i64::MAX);
        let since = desk.now.plus_ms(-window_ms);
        let mut by_ticket: BTreeMap<String, Vec<Episode>> = BTreeMap::new();
        for episode in faults::of_candidates(tx, tenant_id, since).await? {
            about.insert(episode.appliance_id.clone());
            by_ticket.entry(episode.ticket_id.clone()).or_default().push(episode);
        }
        let landscape = landscape::load(tx, tenant_id, about, desk.now, desk.config.silence_after).await?;
        let found = tickets::candidates(tx, tenant_id, since).await?;
        let with_episodes = |ticket: Ticket| {
            let episodes = by_ticket.remove(&ticket.ticket_id).unwrap_or_default();
            Candidate { ticket, episodes }
        };
        let candidates = found.into_iter().map(with_episodes).collect();
        Ok(Self { landscape, candidates, relieved: BTreeSet::new() })
    }

    /// Whether an episode of this fault is open.
    pub(super) fn is_open(&self, appliance_id: &str, key: &FaultKey) -> bool {
        self.landscape.open_episodes.iter().any(|episode| is_of(episode, appliance_id, key))
    }

    /// The ticket that holds an open episode of this fault.
    pub(super) fn ticket_of(&self, appliance_id: &str, key: &FaultKey) -> Option<Ticket> {
        let holds =
            |candidate: &&Candidate| candidate.episodes.iter().any(|episode| episode.open && is_of(episode, appliance_id, key));
        self.candidates.iter().find(holds).map(|candidate| candidate.ticket.clone())
    }

    /// Ends every open episode of a fault.
    pub(super) async fn clear_all(
        &mut self,
        tx: &mut Conn,
        desk: Desk<'_>,
        appliance_id: &str,
        key: &FaultKey,
        summary: &str,
    ) -> anyhow::Result<()> {
        let open = self.landscape.open_episodes.iter().filter(|episode| is_of(episode, appliance_id, key)).cloned();
        for episode in open.collect::<Vec<_>>() {
            self.clear(tx, desk, episode, summary, desk.now).await?;
        }
        Ok(())
    }

    /// Takes one change of one episode.
    pub(super) async fn take(
        &mut self,
        tx: &mut Conn,
        desk: Desk<'_>,
        told: Told<'_>,
        kind: FaultChangeKind,
        known: Option<Episode>,
        cleared_at: Option<UnixMs>,
    ) -> anyhow::Result<()> {
        let step = judge(kind, known.as_ref(), cleared_at.is_some() && kind != FaultChangeKind::Cleared);
        tracing::debug!(episode = told.episode, ?kind, ?step, "a fault changes");
        match (step, known) {
            (Step::Begin(Begin::AlreadyCleared), _) => {
                let over_at = cleared_at.unwrap_or(told.occurred_at);
                self.begin(tx, desk, told, Some(over_at)).await
            }
            (Step::Begin(Begin::Raised | Begin::RaiseLost), _) | (Step::Again, None) => self.begin(tx, desk, told, None).await,
            (Step::Again, Some(mut episode)) => {
                (episode.open, episode.cleared_at) = (true, None);
                self.keep(tx, &episode).await?;
                self.reopen_for(tx, desk, &episode).await
            }
            (Step::Change, Some(mut episode)) => {
                (episode.level, episode.summary, episode.grounds) = (told.level, told.summary.to_owned(), told.grounds);
                self.keep(tx, &episode).await
            }
            (Step::Clear, Some(episode)) => self.clear(tx, desk, episode, told.summary, told.occurred_at).await,
            (Step::Ignore(_), _) | (Step::Change | Step::Clear, None) => Ok(()),
        }
    }

    /// An episode is over.
    async fn clear(
        &mut self,
        tx: &mut Conn,
        desk: Desk<'_>,
        mut episode: Episode,
        summary: &str,
        at: UnixMs,
    ) -> anyhow::Result<()> {
        (episode.open, episode.cleared_at) = (false, Some(at));
        self.keep(tx, &episode).await?;
        self.relieved.insert(episode.ticket_id.clone());
        let event = cleared(&episode, summary);
        match self.candidates.iter_mut().find(|candidate| candidate.ticket.ticket_id == episode.ticket_id) {
            Some(candidate) => happened(tx, desk, &mut candidate.ticket, &event).await,
            None => {
                // Closed long ago by a person, while it still failed.
                let ticket = tickets::get(tx, &episode.tenant_id, &episode.ticket_id).await?;
                let mut ticket = ticket.with_context(|| format!("episode {} without its ticket", episode.episode))?;
                happened(tx, desk, &mut ticket, &event).await
            }
        }
    }

    /// An episode thought over goes on: its ticket reopens, unless it is open or another of its cause is.
    async fn reopen_for(&mut self, tx: &mut Conn, desk: Desk<'_>, episode: &Episode) -> anyhow::Result<()> {
        if !self.candidates.iter().any(|candidate| candidate.ticket.ticket_id == episode.ticket_id) {
            let ticket = tickets::get(tx, &episode.tenant_id, &episode.ticket_id).await?;
            let ticket = ticket.with_context(|| format!("episode {} without its ticket", episode.episode))?;
            let episodes = faults::of_ticket(tx, &episode.tenant_id, &episode.ticket_id).await?;
            self.candidates.push(Candidate { ticket, episodes });
        }
        let is_alive = |candidate: &Candidate| candidate.ticket.state != TicketState::Closed;
        let alive: Vec<String> =
            self.candidates.iter().filter(|c| is_alive(c)).map(|candidate| candidate.ticket.cause.clone()).collect();
        for Candidate { ticket, .. } in &mut self.candidates {
            let free = ticket.state == TicketState::Recovered || !alive.contains(&ticket.cause);
            if ticket.ticket_id == episode.ticket_id && ticket.state != TicketState::Open && free {
                happened(tx, desk, ticket, &reopened(episode)).await?;
            }
        }
        Ok(())
    }

    /// An episode that was not known finds its ticket; an older one of the same fault that never cleared ends with it, since an
    /// agent knows one episode of a fault at a time (its spool was lost or rewound). `over_at`: it is over already; so is what
    /// began before that moment.
    async fn begin(&mut self, tx: &mut Conn, desk: Desk<'_>, told: Told<'_>, over_at: Option<UnixMs>) -> anyhow::Result<()> {
        let (appliance_id, key, begins_at) = (&told.who.appliance_id, told.key, told.occurred_at);
        let older = self.landscape.open_episodes.iter().filter(|episode| is_of(episode, appliance_id, key)).cloned();
        let older: Vec<Episode> = older.filter(|episode| over_at.is_none_or(|over_at| episode.raised_at <= over_at)).collect();
        self.find_ticket(tx, desk, told, over_at).await?;
        for episode in older {
            self.clear(tx, desk, episode, "replaced", over_at.unwrap_or(begins_at)).await?;
        }
        Ok(())
    }

    async fn find_ticket(
        &mut self,
        tx: &mut Conn,
        desk: Desk<'_>,
        told: Told<'_>,
        over_at: Option<UnixMs>,
    ) -> anyhow::Result<()> {
        let arriving = Arriving {
            appliance_id: &told.who.appliance_id,
            key: told.key,
            occurred_at: told.occurred_at,
            already_cleared: over_at.is_some(),
            silent_site: told.silent_site,
        };
        let action = place(&arriving, &self.candidates, &self.landscape, desk.config.flap_window, desk.now);
        tracing::info!(
            appliance = told.who.appliance_id,
            component = told.key.component,
            code = told.key.code,
            ?action,
            "a fault finds its ticket"
        );
        let mut episode = told.episode(desk.now, over_at);
        match action {
            Action::Open(reason) => {
                if reason == OpenReason::AfterRecovery {
                    self.close_recovered(tx, desk, &self.cause(&told)).await?;
                }
                self.open(tx, desk, &told, episode).await
            }
            Action::Join(position, why) => {
                self.candidates[position].ticket.ticket_id.clone_into(&mut episode.ticket_id);
                self.keep(tx, &episode).await?;
                let ticket = &mut self.candidates[position].ticket;
                if why == SameCause::SiteSilent {
                    CODE_SITE_SILENT.clone_into(&mut ticket.code);
                }
                happened(tx, desk, ticket, &joined(&episode)).await?;
                if over_at.is_some() {
                    happened(tx, desk, ticket, &cleared(&episode, told.summary)).await?;
                }
                Ok(())
            }
            Action::Reopen(position, _) => {
                self.candidates[position].ticket.ticket_id.clone_into(&mut episode.ticket_id);
                self.keep(tx, &episode).await?;
                happened(tx, desk, &mut self.candidates[position].ticket, &reopened(&episode)).await
            }
        }
    }

    /// A ticket opens for an episode.
    async fn open(&mut self, tx: &mut Conn, desk: Desk<'_>, told: &Told<'_>, mut episode: Episode) -> anyhow::Result<()> {
        let number = next_number(tx, "ticket").await?;
        episode.ticket_id = format!("T-{number:06}");
        // Weighed as it was while it lasted, also when it is over already.
        let lasting = Episode { open: true, ..episode.clone() };
        self.remember(&lasting);
        let (decision, found) =
            weigh(std::slice::from_ref(&lasting), &self.landscape).context("an open episode has a decision")?;
        self.remember(&episode);
        let mut ticket = new_ticket(desk.now, told, &episode, number, self.cause(told), decision, &found)?;
        opens(tx, desk, &mut ticket, !episode.open).await?;
        faults::put(tx, &episode).await?;
        self.candidates.push(Candidate { ticket, episodes: vec![episode] });
        Ok(())
    }

    /// A recovered ticket makes way for a new one of the same cause.
    async fn close_recovered(&mut self, tx: &mut Conn, desk: Desk<'_>, cause: &str) -> anyhow::Result<()> {
        for Candidate { ticket, .. } in &mut self.candidates {
            if ticket.state == TicketState::Recovered && ticket.cause == cause {
                let why = "new_fault".to_owned();
                happened(tx, desk, ticket, &TicketEvent::Closed { why }).await?;
            }
        }
        Ok(())
    }

    fn cause(&self, told: &Told<'_>) -> String {
        match told.silent_site {
            Some(site) => grounds::cause_of_site(&site.site_id),
            None => grounds::cause(&told.who.appliance_id, told.key, &self.landscape),
        }
    }

    /// Writes an episode and remembers it in the scene.
    async fn keep(&mut self, tx: &mut Conn, episode: &Episode) -> anyhow::Result<()> {
        faults::put(tx, episode).await?;
        self.remember(episode);
        Ok(())
    }

    fn remember(&mut self, episode: &Episode) {
        self.landscape.open_episodes.retain(|other| !same_episode(other, episode));
        if episode.open {
            self.landscape.open_episodes.push(episode.clone());
        }
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.ticket.ticket_id == episode.ticket_id) {
            candidate.episodes.retain(|other| !same_episode(other, episode));
            candidate.episodes.push(episode.clone());
        }
    }

    /// Weighs every open ticket again, since one customer's tickets share groups: upward, or recovered.
    pub(super) async fn settle(&mut self, tx: &mut Conn, desk: Desk<'_>) -> anyhow::Result<()> {
        for Candidate { ticket, episodes } in &mut self.candidates {
            if ticket.state != TicketState::Open || episodes.is_empty() {
                continue;
            }
            let Some((decision, found)) = weigh(episodes, &self.landscape) else {
                if self.relieved.contains(&ticket.ticket_id) {
                    happened(tx, desk, ticket, &TicketEvent::Recovered).await?;
                }
                continue;
            };
            let knew = if ticket.reason == Reason::HumanAnswer.as_str() { person_knew(tx, ticket).await? } else { None };
            match regrade(ticket, &decision, knew) {
                Regrade::Upward | Regrade::Confirmed => {
                    ticket.grounds = serde_json::to_string(&found)?;
                    let event = TicketEvent::ImpactChanged {
                        from: ticket.impact,
                        to: decision.impact,
                        presumed: decision.presumed,
                        reason: decision.reason.as_str().to_owned(),
                        why: String::new(),
                        customer_word: String::new(),
                    };
                    happened(tx, desk, ticket, &event).await?;
                }
                Regrade::Keep(reason) => tracing::trace!(ticket = ticket.ticket_id, ?reason, "the impact stays"),
            }
        }
        Ok(())
    }
}

/// The gravest automatic impact since the ticket last opened: what a person knew who then graded it by hand.
async fn person_knew(tx: &mut Conn, ticket: &Ticket) -> anyhow::Result<Option<BusinessImpact>> {
    let mut knew = None;
    for entry in tickets::timeline(tx, &ticket.tenant_id, &ticket.ticket_id).await? {
        match entry.event {
            TicketEvent::Opened { impact, .. } => knew = Some(impact),
            TicketEvent::ImpactChanged { to, ref reason, .. } if reason != Reason::HumanAnswer.as_str() => {
                knew = knew.max(Some(to))
            }
            // Who lowers an impact knows the one that he lowers.
            TicketEvent::ImpactChanged { from, .. } => knew = knew.max(Some(from)),
            TicketEvent::Reopened { .. } => knew = None,
            _ => {}
        }
    }
    Ok(knew)
}
