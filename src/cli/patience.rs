//! Waiting out a platform that is away for a while, such as one that is being restarted.

use std::time::Duration;

use events::api::Problem;

/// How often the platform is tried again before it is given up; an answer counts anew.
const TRIES_MAX: u32 = 10;
/// The first pause before it is tried again; doubled each time, at most [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How much of the patience with a platform is used up.
#[derive(Debug, Default)]
pub(super) struct Patience {
    tries: u32,
}

impl Patience {
    /// Waits until it is worth trying again, and says once that it does.
    ///
    /// # Errors
    /// The problem itself, if it would come again or has come too often.
    pub(super) async fn bear(&mut self, problem: Problem) -> Result<(), Problem> {
        if self.tries == TRIES_MAX || !problem.kind.is_retryable() {
            return Err(problem);
        }
        if self.tries == 0 {
            crate::output::remark(format_args!("waiting for the platform: {}", problem.detail));
        }
        tokio::time::sleep((PAUSE * 2_u32.pow(self.tries)).min(PAUSE_MAX)).await;
        self.tries += 1;
        Ok(())
    }

    /// The platform has answered.
    pub(super) fn renew(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use events::api::ProblemKind;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_for_half_a_minute_and_for_what_may_pass() {
        let away = || Problem::new(ProblemKind::Unavailable, "nothing answers");
        let (mut patience, begun) = (Patience::default(), tokio::time::Instant::now());
        while patience.bear(away()).await.is_ok() {}
        assert_eq!(begun.elapsed().as_secs(), 31);
        patience.renew();
        patience.bear(away()).await.unwrap();
        patience.bear(Problem::new(ProblemKind::NotFound, "gone")).await.unwrap_err();
    }
}
