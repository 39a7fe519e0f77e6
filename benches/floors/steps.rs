//! An execution's steps without the engine around them: the typestates over the same store
//! and upstream. They are driven by the caller's task, by one actor per key, or by one actor
//! per key under a supervisor. There is no coalescing, admission, deadline, breaker, metrics
//! or memory. The rows use them to show what each part of the engine costs.

use std::hint::black_box;
use std::sync::Arc;

use genesys_once::execution::{Attempt, Execution, Lock, Terms};
use genesys_once::record::Namespace;
use genesys_once::upstream::AccessToken;
use genesys_once::{DataActionRequest, Reply, Store, Upstream};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::measure::{Side, throughput};

/// What the steps need; a clone shares all of it.
#[derive(Clone)]
pub struct Steps(Arc<Means>);

struct Means {
    store: Box<dyn Store>,
    upstream: Box<dyn Upstream>,
    token: Option<AccessToken>,
    namespace: Namespace,
    terms: Terms,
    supervisor: ActorRef<Job>,
}

/// What drives the steps.
#[derive(Clone, Copy)]
pub enum Driver {
    Caller,
    ActorPerKey,
    /// Spawned by the caller and linked to a supervisor, which receives an event for its
    /// start and an event for its end.
    LinkedActorPerKey,
    /// Spawned by that supervisor, when the caller's message arrives.
    SupervisedActorPerKey,
}

/// Each driver, as a side of a row.
pub fn as_others<'a>(run: impl Fn(Driver) -> f64 + Clone + 'a) -> Vec<Side<'a>> {
    let side = |name, by| {
        let run = run.clone();
        Side {
            name,
            run: Box::new(move || run(by)),
        }
    };
    vec![
        side("steps", Driver::Caller),
        side("steps_in_actors", Driver::ActorPerKey),
        side("steps_linked", Driver::LinkedActorPerKey),
        side("steps_supervised", Driver::SupervisedActorPerKey),
    ]
}

impl Steps {
    /// Obtains a token first, if the upstream needs one.
    pub async fn new(store: impl Store, upstream: impl Upstream) -> Self {
        let token = match upstream.token_source() {
            Some(source) => Some(source.fetch().await.expect("a token")),
            None => None,
        };
        let supervisor = Actor::spawn(None, Supervisor, ()).await;
        Self(Arc::new(Means {
            supervisor: supervisor.expect("an actor").0,
            namespace: upstream.namespace(),
            store: Box::new(store),
            upstream: Box::new(upstream),
            token,
            terms: Terms::default(),
        }))
    }

    /// All steps of one free key, driven by the caller's task.
    pub async fn take(&self, request: DataActionRequest) -> Reply {
        let Means {
            store,
            upstream,
            token,
            namespace,
            terms,
            ..
        } = &*self.0;
        let hashed = Execution::new(request, namespace.clone());
        let locked = match hashed.lock(&**store, terms).await.expect("a store") {
            Lock::Locked(locked) => locked,
            Lock::Cached(cached) => return cached.into_reply(),
            other => panic!("the key has another holder: {other:?}"),
        };
        let attempt = locked.execute(&**store, &**upstream, token.as_ref()).await;
        let executed = match attempt.expect("a live lease") {
            Attempt::Executed(executed) => executed,
            other => panic!("not executed: {other:?}"),
        };
        let cached = executed.cache(&**store).await;
        cached
            .map_err(|(_, error)| error)
            .expect("a store")
            .into_reply()
    }

    /// The same steps by another driver.
    pub async fn take_by(&self, driver: Driver, request: DataActionRequest) -> Reply {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            steps: self.clone(),
            request,
            answer,
        };
        match driver {
            Driver::Caller => return self.take(job.request).await,
            Driver::ActorPerKey => {
                Actor::spawn(None, OneKey, job).await.expect("an actor");
            }
            Driver::LinkedActorPerKey => {
                let supervisor = self.0.supervisor.get_cell();
                let spawned = Actor::spawn_linked(None, OneKey, job, supervisor);
                Box::pin(spawned).await.expect("an actor");
            }
            Driver::SupervisedActorPerKey => {
                let sent = self.0.supervisor.send_message(job);
                sent.expect("a supervisor");
            }
        }
        answered.await.expect("an answer")
    }

    /// Replies per second; `request` makes the request of each number.
    pub async fn throughput<F>(&self, calls: usize, by: Driver, request: F) -> f64
    where
        F: Fn(usize) -> DataActionRequest + Clone + Send + 'static,
    {
        throughput(calls, |numbers| {
            let (steps, request) = (self.clone(), request.clone());
            async move {
                for n in numbers {
                    black_box(steps.take_by(by, request(n)).await);
                }
            }
        })
        .await
    }
}

/// The least possible supervisor: it spawns, and ignores every event.
struct Supervisor;

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for Supervisor {
    type Msg = Job;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Job>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Job>,
        job: Job,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Box::pin(Actor::spawn_linked(None, OneKey, job, myself.get_cell())).await?;
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Job>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Drop for Means {
    fn drop(&mut self) {
        self.supervisor.stop(None);
    }
}

struct OneKey;

struct Job {
    steps: Steps,
    request: DataActionRequest,
    answer: oneshot::Sender<Reply>,
}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Job {}

/// This actor receives no messages.
enum Nothing {}

#[cfg(feature = "ractor-cluster")]
impl ractor::Message for Nothing {}

#[cfg_attr(feature = "ractor-async-trait", ractor::async_trait)]
impl Actor for OneKey {
    type Msg = Nothing;
    type State = Option<Job>;
    type Arguments = Job;

    async fn pre_start(
        &self,
        _: ActorRef<Nothing>,
        job: Job,
    ) -> Result<Option<Job>, ActorProcessingErr> {
        Ok(Some(job))
    }

    async fn post_start(
        &self,
        myself: ActorRef<Nothing>,
        job: &mut Option<Job>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(Job {
            steps,
            request,
            answer,
        }) = job.take()
        {
            // Boxed, as in the engine: ractor stores a hook's future twice.
            let reply = Box::pin(async move { steps.take(request).await }).await;
            // The caller might have left.
            let _ = answer.send(reply);
        }
        myself.stop(None);
        Ok(())
    }
}
