//! The program of a framework under test: a scheduler, and how to make another one.

use std::any::Any;

use meros_sdk_core::{Call, News};

use crate::config::SessionConfig;
use crate::scheduler::{Scheduler, react};

/// A program whatever its scheduler.
pub(super) trait Program: Any {
    /// What its scheduler makes of news, as [`crate::run`] would pass it on.
    fn react(&mut self, news: News) -> Vec<Call>;

    /// It is started again: a new scheduler takes the place of the old one.
    fn renew(&mut self);
}

/// A program with a scheduler of this type.
pub(super) struct Typed<S> {
    pub(super) scheduler: S,
    pub(super) config: SessionConfig,
    /// Takes the place of what `make` makes at the next start.
    pub(super) next: Option<S>,
    make: Box<dyn FnMut() -> S>,
}

impl<S> Typed<S> {
    pub(super) fn new(config: SessionConfig, mut make: impl FnMut() -> S + 'static) -> Self {
        Self {
            scheduler: make(),
            config,
            next: None,
            make: Box::new(make),
        }
    }
}

impl<S: Scheduler + 'static> Program for Typed<S> {
    fn react(&mut self, news: News) -> Vec<Call> {
        react(&mut self.scheduler, news, &self.config)
    }

    fn renew(&mut self) {
        self.scheduler = self.next.take().unwrap_or_else(&mut self.make);
    }
}
