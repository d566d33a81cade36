//! Events of the programs and of the agent, handed to everybody who listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use podwire::api::{MonitorFilter, MonitorStatus, MonitorType};
use podwire::endpoint::EndpointRecord;
use podwire::events::{Event, EventReader, Losses};
use podwire::policy::RuleNumber;
use podwire::{Datapath, EndpointId, Error, Result};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Events that a slow listener may be behind before it loses some.
const BACKLOG: usize = 16_384;
/// How long the reader waits for events before it looks for losses.
const PAUSE: Duration = Duration::from_millis(500);
/// Drop events that a CPU may emit in a window of 256 ticks.
pub(crate) const DROP_EVENTS: u32 = 1000;
/// Size of the ring between kernel and agent, and of a page.
const RING_PAGES: (u64, u64) = (256, 4096);

/// An event on its way to listeners.
#[derive(Debug)]
struct Message {
    /// `None` for what everybody gets.
    kind: Option<MonitorType>,
    from: Option<EndpointId>,
    to: Option<EndpointId>,
    line: String,
}

/// Events that nobody got.
#[derive(Debug, Default)]
pub(crate) struct LossCounters {
    pub(crate) limited: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// The hub between the kernel's events and those who listen.
#[derive(Clone)]
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    /// Ends before the agent does only if something is wrong.
    reader: Arc<JoinHandle<()>>,
}

struct Shared {
    sender: Sender<Arc<Message>>,
    /// Not for reading: for switching kinds of events on and off.
    switches: Mutex<Switches>,
    losses: Arc<LossCounters>,
    ending: AtomicBool,
    /// Knows the rules by their numbers.
    datapath: Arc<Datapath>,
}

struct Switches {
    events: EventReader,
    traces: Wanted,
    verdicts: Wanted,
}

/// A kind of events that is switched on only while somebody wants it.
struct Wanted {
    listeners: usize,
    allowed: bool,
}

impl Wanted {
    const fn by_nobody() -> Self {
        Self { listeners: 0, allowed: true }
    }

    const fn is_on(&self) -> bool {
        self.allowed && self.listeners > 0
    }
}

impl Switches {
    /// Traces cost every packet, verdicts every new connection.
    fn apply(&self) -> Result<()> {
        self.events.set_tracing(self.traces.is_on())?;
        self.events.set_verdict_events(self.verdicts.is_on())
    }

    /// What the listeners to a kind of event switch, if anything.
    fn of(&mut self, kind: &MonitorType) -> Option<&mut Wanted> {
        match kind {
            MonitorType::Trace => Some(&mut self.traces),
            MonitorType::PolicyVerdict => Some(&mut self.verdicts),
            _ => None,
        }
    }

    /// One listener more, or less, for each kind that a filter lets through.
    fn count(&mut self, filter: &MonitorFilter, change: fn(usize, usize) -> usize) {
        for kind in [MonitorType::Trace, MonitorType::PolicyVerdict] {
            let wants = filter.types.is_empty() || filter.types.contains(&kind);
            if let Some(wanted) = self.of(&kind).filter(|_| wants) {
                wanted.listeners = change(wanted.listeners, 1);
            }
        }
    }
}

impl Monitor {
    /// Begins to read events.
    pub(crate) fn start(datapath: &Arc<Datapath>) -> Result<Self> {
        // The second is not for reading.
        let (reader, events) = (datapath.events()?, datapath.events()?);
        let switches = Switches { events, traces: Wanted::by_nobody(), verdicts: Wanted::by_nobody() };
        // A predecessor may have died while somebody listened.
        switches.apply()?;
        let shared = Arc::new(Shared {
            sender: Sender::new(BACKLOG),
            switches: Mutex::new(switches),
            losses: Arc::default(),
            ending: AtomicBool::new(false),
            datapath: Arc::clone(datapath),
        });
        let reading = Arc::clone(&shared);
        let named = thread::Builder::new().name("events".to_owned());
        let reader = named
            .spawn(move || reading.read_all(reader))
            .map_err(|cause| Error::system("start thread", "events", cause))?;
        Ok(Self { shared, reader: Arc::new(reader) })
    }

    /// Ends reading, and switches off what only listeners need.
    pub(crate) fn end(&self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        let switches = self.shared.switches.lock();
        let off = switches.events.set_tracing(false).and_then(|()| switches.events.set_verdict_events(false));
        if let Err(error) = off {
            log::warn!("events can't be switched off: {error}");
        }
    }

    /// Listens from now on.
    pub(crate) fn subscribe(&self, filter: MonitorFilter) -> Result<Subscription> {
        let mut switches = self.shared.switches.lock();
        let receiver = self.shared.sender.subscribe();
        switches.count(&filter, usize::saturating_add);
        let applied = switches.apply();
        drop(switches);
        // Takes its wishes back when it is dropped, on failure right here.
        let subscription = Subscription { receiver, filter, monitor: self.clone() };
        applied.map(|()| subscription)
    }

    /// Tells of something that happened to an endpoint.
    pub(crate) fn endpoint(&self, what: &str, record: &EndpointRecord) {
        let (namespace, pod) = record.pod().unzip();
        let labels: Vec<_> = record.labels.iter().map(ToString::to_string).collect();
        let message = json!({"id": record.id, "labels": labels, "pod-name": pod, "namespace": namespace});
        let text = format!(">> {what}: {message}");
        let event = json!({"type": "agent", "subtype": what, "message": message});
        self.shared.publish(Some(MonitorType::Agent), Some(record.id), Some(record.id), || (event, text));
    }

    /// Tells of policies that came, changed or went.
    pub(crate) fn policy(&self, what: &str, policies: &[String], revision: u64) {
        let message = json!({"policies": policies, "revision": revision});
        let text = format!(">> {what}: {message}");
        let event = json!({"type": "agent", "subtype": what, "message": message});
        self.shared.publish(Some(MonitorType::Agent), None, None, || (event, text));
    }

    pub(crate) fn allow_traces(&self, allowed: bool) -> Result<()> {
        let mut switches = self.shared.switches.lock();
        switches.traces.allowed = allowed;
        switches.apply()
    }

    pub(crate) fn allow_verdicts(&self, allowed: bool) -> Result<()> {
        let mut switches = self.shared.switches.lock();
        switches.verdicts.allowed = allowed;
        switches.apply()
    }

    pub(crate) fn allow_drops(&self, allowed: bool) -> Result<()> {
        self.shared.switches.lock().events.set_drop_limit(if allowed { DROP_EVENTS } else { 0 })
    }

    pub(crate) fn losses(&self) -> Arc<LossCounters> {
        Arc::clone(&self.shared.losses)
    }

    /// Why no events of the programs come any more, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed = self.reader.is_finished() && !self.shared.ending.load(Ordering::Relaxed);
        failed.then(|| "events: can't be read any more: see the log, and start the agent anew".to_owned())
    }

    pub(crate) fn status(&self) -> MonitorStatus {
        let losses = &self.shared.losses;
        MonitorStatus {
            cpus: thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            lost: losses.limited.load(Ordering::Relaxed) + losses.lost.load(Ordering::Relaxed),
            npages: RING_PAGES.0,
            pagesize: RING_PAGES.1,
            unknown: 0,
        }
    }
}

impl Shared {
    fn read_all(&self, mut reader: EventReader) {
        let mut known = reader.losses().unwrap_or_default();
        while !self.ending.load(Ordering::Relaxed) {
            if let Err(error) = reader.wait(Some(PAUSE)) {
                log::error!("events can't be read any more: {error}");
                return;
            }
            reader.read(|event| self.pass_on(event));
            match reader.losses() {
                Ok(losses) => known = self.tell_losses(known, losses),
                Err(error) => log::warn!("losses can't be read: {error}"),
            }
        }
    }

    fn pass_on(&self, mut event: Event) {
        let kind = match &mut event {
            Event::Drop(_) => MonitorType::Drop,
            Event::Trace(_) => MonitorType::Trace,
            Event::PolicyVerdict(verdict) => {
                let source = self.datapath.policy().source(RuleNumber::new(verdict.rule));
                verdict.rule_name = source.map(|source| source.to_string());
                MonitorType::PolicyVerdict
            }
            _ => return,
        };
        let to = u16::try_from(event.destination()).ok().and_then(EndpointId::new);
        let from = EndpointId::new(event.source());
        self.publish(Some(kind), from, to, || (serde_json::to_value(&event).unwrap_or_default(), event.to_string()));
    }

    fn tell_losses(&self, before: Losses, now: Losses) -> Losses {
        let limited = now.limited.saturating_sub(before.limited);
        let lost = now.lost.saturating_sub(before.lost);
        self.losses.limited.fetch_add(limited, Ordering::Relaxed);
        self.losses.lost.fetch_add(lost, Ordering::Relaxed);
        for (count, reason) in [(limited, "the limit of drop events was reached"), (lost, "the ring buffer was full")] {
            if count > 0 {
                self.publish(None, None, None, || lost_event(count, reason));
            }
        }
        now
    }

    /// Hands an event to all listeners. It is only put into words if there are any.
    fn publish(
        &self,
        kind: Option<MonitorType>,
        from: Option<EndpointId>,
        to: Option<EndpointId>,
        words: impl FnOnce() -> (Value, String),
    ) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        let line = line(words());
        // Nobody listens any more: nothing to do.
        let _ = self.sender.send(Arc::new(Message { kind, from, to, line }));
    }
}

fn lost_event(count: u64, reason: &str) -> (Value, String) {
    (json!({"type": "lost", "count": count, "reason": reason}), format!("!! {count} events lost: {reason}"))
}

fn line((mut event, text): (Value, String)) -> String {
    if let Some(fields) = event.as_object_mut() {
        fields.insert("text".to_owned(), text.into());
    }
    format!("{event}\n")
}

/// A listener.
pub(crate) struct Subscription {
    receiver: Receiver<Arc<Message>>,
    filter: MonitorFilter,
    monitor: Monitor,
}

impl Subscription {
    /// The next event that passes the filter, as a line of JSON; `None` when the agent ends.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            match self.receiver.recv().await {
                Ok(message) if self.passes(&message) => return Some(message.line.clone()),
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => return Some(line(lost_event(count, "the listener was too slow"))),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn passes(&self, message: &Message) -> bool {
        message.kind.as_ref().is_none_or(|kind| self.filter.accepts(kind, message.from, message.to))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut switches = self.monitor.shared.switches.lock();
        switches.count(&self.filter, usize::saturating_sub);
        if let Err(error) = switches.apply() {
            log::warn!("events can't be switched off: {error}");
        }
    }
}
