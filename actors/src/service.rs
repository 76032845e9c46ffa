//! Long-running loops of the platform as supervised actors: one that ends or panics is started again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use events::supervision::ChildKind;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinHandle;

use crate::supervisor::ChildSpec;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Run = Arc<dyn Fn() -> Running + Send + Sync>;

/// Carries one loop.
struct Service;

/// The loop has ended, which it never should.
struct Ended(String);

#[ractor::async_trait]
impl Actor for Service {
    type Msg = Ended;
    type State = JoinHandle<()>;
    type Arguments = Run;

    async fn pre_start(&self, me: ActorRef<Ended>, run: Run) -> Result<JoinHandle<()>, ActorProcessingErr> {
        let work = tokio::spawn(run());
        let watched = tokio::spawn(async move {
            let aborts = AbortOnDrop(work.abort_handle());
            let how = match work.await {
                Ok(()) => "it returned".to_owned(),
                Err(error) => error.to_string(),
            };
            drop(aborts);
            // The actor may be stopping already; then nobody has to be told.
            let _ = me.cast(Ended(how));
        });
        Ok(watched)
    }

    async fn handle(
        &self,
        _: ActorRef<Ended>,
        Ended(how): Ended,
        _: &mut JoinHandle<()>,
    ) -> Result<(), ActorProcessingErr> {
        Err(how.into())
    }

    async fn post_stop(
        &self,
        _: ActorRef<Ended>,
        watched: &mut JoinHandle<()>,
    ) -> Result<(), ActorProcessingErr> {
        watched.abort();
        Ok(())
    }
}

/// Ends the loop with the task that watches it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A permanent child that runs this loop.
pub(crate) fn child<F>(name: &'static str, run: impl Fn() -> F + Send + Sync + 'static) -> ChildSpec
where
    F: Future<Output = ()> + Send + 'static,
{
    let run: Run = Arc::new(move || Box::pin(run()));
    ChildSpec::new(name, ChildKind::Permanent, move |parent| {
        let run = Arc::clone(&run);
        async move {
            let (actor, _) = Service::spawn_linked(None, Service, run, parent).await?;
            Ok(actor.get_cell())
        }
    })
}
