//! 920: what the domain allows, signed by its key (SPEC.md §10).
//!
//! With it goes the domain's record, whose identity key signs it. How a policy comes to be is in
//! `operator`.

use protocol::{Address, Command, base64};

use super::Domain;
use super::answer::{Answer, AnswerLine};
use super::failure::Caller;
use crate::clock::Now;
use crate::directory;

impl Domain {
    /// Handles 920.
    pub(super) fn fetch_policy(
        &mut self,
        _caller: &Caller,
        _command: &Command<'_>,
        _now: Now,
    ) -> Result<Answer, Answer> {
        let domain = Address::parse(&self.settings.domain)?;
        let policy = directory::policy(&*self.store, domain)?;
        let account = self.directory.account(&*self.store, domain)?;
        let (Some((_, line)), Some(account)) = (policy, account) else {
            let text = "the domain is not provisioned: the operator must do that";
            return Err(Answer::text(451, text));
        };
        let answer = AnswerLine::new(251, "policy")
            .with("POL", base64::encode(line.as_bytes()))
            .with("REC", base64::encode(account.record_line().as_bytes()));
        Ok(answer.into())
    }
}
