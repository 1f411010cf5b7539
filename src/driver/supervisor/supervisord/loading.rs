//! Making sections known to supervisord: it re-reads its configuration for that, once for all sections that are wanted while
//! it is at it.
//!
//! What it has read it keeps in memory, so an instance's section is in the folder that is read only while it is being added,
//! and beside it afterwards. A reading of 1,000 sections takes a second, in which nothing else is answered; so it takes a
//! few milliseconds, however many are awake.
//!
//! The order that keeps the files true: a group is taken out of supervisord before its file in `kept` changes, and the file
//! comes to `kept` after the group was added. So a group that supervisord has and that has a file there was made from it,
//! also after a crash between two steps.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::rpc::{Client, RpcError};
use super::sections::Sections;
use super::xmlrpc::{Fault, Value, fault};

/// Most sections that are added at once: whoever wants to start one of them waits for all.
const MOST: usize = 64;

type Answer = oneshot::Receiver<Result<Added, RpcError>>;

/// Sections, and those that are about to be.
#[derive(Debug)]
pub(super) struct Loading {
    /// What supervisord has, or is to find when it comes up.
    pub(super) kept: Sections,
    /// What it reads when it is told to. `None`: it reads `kept`.
    adding: Option<Sections>,
    queue: Mutex<VecDeque<Wanted>>,
    /// Held by whoever adds what is in the queue.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Wanted {
    name: String,
    text: String,
    reply: oneshot::Sender<Result<Added, RpcError>>,
}

/// What came of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// supervisord has it.
    Now,
    /// supervisord has a group of this name, of a text that nobody knows.
    WasThere,
}

impl Loading {
    /// Sections that supervisord reads whenever it reads anything.
    pub(super) fn lasting(dir: PathBuf) -> Self {
        Self { kept: Sections::new(dir), adding: None, queue: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Sections that it reads once, from `adding`.
    pub(super) fn once(kept: PathBuf, adding: PathBuf) -> Self {
        Self { adding: Some(Sections::new(adding)), ..Self::lasting(kept) }
    }

    /// The folder that supervisord reads.
    pub(super) fn read(&self) -> &Sections {
        self.adding.as_ref().unwrap_or(&self.kept)
    }

    /// Removes the section on disk; supervisord does not have it any more.
    pub(super) fn remove(&self, name: &str) -> Result<(), super::SupervisorError> {
        self.kept.remove(name)?;
        self.adding.as_ref().map_or(Ok(()), |adding| adding.remove(name))
    }

    /// Makes the section known to supervisord, which has no group of this name.
    pub(super) async fn add(&self, client: &Client, name: &str, text: &str) -> Result<Added, RpcError> {
        loop {
            let (reply, mut answer) = oneshot::channel();
            self.queue().push_back(Wanted { name: name.to_owned(), text: text.to_owned(), reply });
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered.ok(),
                _turn = self.turn.lock() => self.work_for(client, &mut answer).await,
            };
            if let Some(added) = answered {
                return added;
            }
            // Whoever was at it was dropped half-way: from the beginning.
        }
    }

    /// Works until this one is answered; there may be others before it.
    async fn work_for(&self, client: &Client, answer: &mut Answer) -> Option<Result<Added, RpcError>> {
        loop {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => self.work(client).await,
                Ok(added) => return Some(added),
                Err(TryRecvError::Closed) => return None,
            }
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<Wanted>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what is in the queue; everybody in it is answered.
    async fn work(&self, client: &Client) {
        let mut batch: Vec<Wanted> = {
            let mut queue = self.queue();
            let most = queue.len().min(MOST);
            queue.drain(..most).filter(|wanted| !wanted.reply.is_closed()).collect()
        };
        // Each round ends all, or takes one of them or one that was left behind out of the way.
        while !batch.is_empty() {
            match self.exchange(client, &batch).await {
                Ok(results) => {
                    for (wanted, result) in batch.drain(..).zip(results) {
                        let result = self.settle(&wanted.name, result);
                        let _ = wanted.reply.send(result);
                    }
                }
                Err(Refused { why, culprit }) => {
                    batch.iter().for_each(|wanted| drop(self.read().remove(&wanted.name)));
                    match culprit.as_ref().map(|name| (name, batch.iter().position(|wanted| wanted.name == *name))) {
                        Some((_, Some(at))) => drop(batch.remove(at).reply.send(Err(why))),
                        Some((name, None)) => {
                            tracing::warn!(section = name, "supervisord refuses a section: it is removed until its next start");
                            if self.read().remove(name).is_err() {
                                fail(batch.drain(..), &why);
                            }
                        }
                        None => fail(batch.drain(..), &why),
                    }
                }
            }
        }
    }

    /// Writes the sections, has them read and added. One result each; or why none was added, and because of which section.
    async fn exchange(&self, client: &Client, batch: &[Wanted]) -> Result<Vec<Result<Value, Fault>>, Refused> {
        self.write(batch).map_err(|e| Refused { why: RpcError::Broken(e.to_string()), culprit: None })?;
        let name = |wanted: &Wanted| vec![Value::text(&wanted.name)];
        let mut calls = vec![("supervisor.reloadConfig", vec![])];
        calls.extend(batch.iter().map(|wanted| ("supervisor.addProcessGroup", name(wanted))));
        let mut results = client.multicall(&calls).await.map_err(|why| Refused { why, culprit: None })?;
        let Err(refused) = results.remove(0) else { return Ok(results) };
        // What it had read before is still in its mind, and it may have made groups of that.
        let back: Vec<_> = batch.iter().map(|wanted| ("supervisor.removeProcessGroup", name(wanted))).collect();
        let culprit = if refused.code == fault::CANT_REREAD { self.read().culprit(&refused.text) } else { None };
        match client.multicall(&back).await {
            Ok(_) => Err(Refused { why: refused.into(), culprit }),
            Err(why) => Err(Refused { why, culprit: None }),
        }
    }

    fn write(&self, batch: &[Wanted]) -> Result<(), super::SupervisorError> {
        if let Some(adding) = &self.adding {
            // Left behind by an acc that was killed.
            let names: Vec<String> = batch.iter().map(|wanted| wanted.name.clone()).collect();
            adding.keep_only(&names)?;
            batch.iter().try_for_each(|wanted| self.kept.remove(&wanted.name))?;
        }
        batch.iter().try_for_each(|wanted| self.read().write(&wanted.name, &wanted.text))
    }

    /// The file of a section that was added is kept; any other is not.
    fn settle(&self, name: &str, result: Result<Value, Fault>) -> Result<Added, RpcError> {
        let broken = |e: super::SupervisorError| RpcError::Broken(e.to_string());
        match result {
            Ok(_) => match &self.adding {
                Some(adding) => adding.move_to(name, &self.kept).map_err(broken).map(|()| Added::Now),
                None => Ok(Added::Now),
            },
            Err(refused) => {
                self.read().remove(name).map_err(broken)?;
                if refused.code == fault::ALREADY_ADDED { Ok(Added::WasThere) } else { Err(refused.into()) }
            }
        }
    }
}

/// Why none of a batch was added.
struct Refused {
    why: RpcError,
    /// The section supervisord complains about.
    culprit: Option<String>,
}

fn fail(batch: impl Iterator<Item = Wanted>, why: &RpcError) {
    batch.for_each(|wanted| drop(wanted.reply.send(Err(why.clone()))));
}
