//! What happens to the host of the simulation by itself, and what a failure may be excused with.

use super::*;

impl State {
    /// Settles what has come due, in order.
    pub(super) fn settle(&mut self) {
        let now = self.now;
        loop {
            let dying = self
                .procs
                .values()
                .filter_map(|p| p.dies.map(|(at, exit)| (at, p.pid, exit)))
                .filter(|d| d.0 <= now);
            let dying = dying.min_by_key(|(at, pid, _)| (*at, *pid));
            let until = dying.map_or(now, |d| d.0);
            self.land(until);
            let Some((at, pid, exit)) = dying else { return };
            self.end_process(at, pid, exit);
        }
    }

    /// Requests that are answered by then.
    pub(super) fn land(&mut self, until: u64) {
        if !self.flights.values().any(|f| f.ends <= until) {
            return;
        }
        let mut done: Vec<(u64, u64)> = self
            .flights
            .iter()
            .filter(|(_, f)| f.ends <= until)
            .map(|(id, f)| (f.ends, *id))
            .collect();
        // In the order in which they end: the access log has the time of the last one.
        done.sort_unstable();
        for (_, id) in done {
            let Some(flight) = self.flights.remove(&id) else {
                continue;
            };
            self.used(flight.who, flight.ends);
            self.fate(id, &flight, true);
        }
    }

    /// The access log and the book of last uses.
    pub(super) fn used(&mut self, who: usize, at: u64) {
        self.busy(who, at);
        let modified = self.wall(at);
        let mark = &mut self.logs[who];
        *mark = LogMark {
            inode: 1,
            size: mark.size + 1,
            modified,
        };
    }

    pub(in super::super) fn busy(&mut self, who: usize, at: u64) {
        self.recent[who] = self.recent[who].max(at);
    }

    /// Somebody looks: all use up to now can be known.
    pub(in super::super) fn looked(&mut self, who: usize) {
        self.last_use[who] = self.last_use[who].max(self.recent[who]);
    }

    pub(super) fn fate(&mut self, id: u64, flight: &Flight, good: bool) {
        if flight.via_acc {
            self.fates.insert(id, good);
        } else {
            self.asked.remove(&id);
            self.count(good);
            self.say(format_args!(
                "  request {id} was {} (direct)",
                if good { "answered" } else { "broken" }
            ));
        }
    }

    pub(in super::super) fn count(&mut self, good: bool) {
        if good {
            self.stats.answered += 1;
        } else {
            self.stats.broken += 1;
        }
    }

    pub(super) fn end_process(&mut self, at: u64, pid: i32, exit: Exit) {
        let Some(process) = self.procs.remove(&pid) else {
            return;
        };
        self.ended.insert(pid, exit);
        self.say(format_args!(
            "  process {pid} of {} ended at {at}: {exit}",
            NAMES[process.who]
        ));
        let cut: Vec<u64> = self
            .flights
            .iter()
            .filter(|(_, f)| f.pid == pid)
            .map(|(id, _)| *id)
            .collect();
        if !cut.is_empty() && !process.may_cut {
            self.violate(format!(
                "the end of process {pid} of {} cut {} requests",
                NAMES[process.who],
                cut.len()
            ));
        }
        for id in cut {
            let Some(flight) = self.flights.remove(&id) else {
                continue;
            };
            self.used(flight.who, at);
            self.fate(id, &flight, false);
        }
    }

    pub(in super::super) fn wall(&self, at: u64) -> i64 {
        1_700_000_000_000 + i64::try_from(at).unwrap() + self.wall_offset
    }

    pub(super) fn next_event(&self) -> Option<u64> {
        let now = self.now;
        let of_proc = |p: &Proc| [Some(p.born), p.listens, p.dies.map(|d| d.0)];
        let procs = self.procs.values().flat_map(of_proc).flatten();
        procs
            .chain(self.flights.values().map(|f| f.ends))
            .filter(|at| *at > now)
            .min()
    }

    /// The process of this instance that is alive now.
    pub(in super::super) fn process(&mut self, who: usize) -> Option<&mut Proc> {
        let now = self.now;
        self.procs
            .values_mut()
            .find(|p| p.who == who && p.born <= now)
    }

    /// Each instance has its own stream, so that what happens to one does not depend on the order
    /// of what happens to others.
    pub(in super::super) fn rng(&mut self, who: Option<usize>) -> &mut Rng {
        &mut self.rngs[who.unwrap_or(NAMES.len())]
    }

    pub(in super::super) fn next_pid(&mut self) -> i32 {
        self.next += 1;
        100_000_000 + self.next
    }

    pub(in super::super) fn in_flight(&self, pid: i32) -> u32 {
        u32::try_from(self.flights.values().filter(|f| f.pid == pid).count()).unwrap()
    }

    pub(in super::super) fn excuse(&mut self, why: Why, who: Option<usize>, from: u64, until: u64) {
        self.excuses.push(Excuse {
            why,
            who,
            from,
            until,
        });
    }

    /// An excuse that holds until it is ended.
    pub(in super::super) fn begin_excuse(&mut self, why: Why, who: Option<usize>) {
        let now = self.now;
        self.excuse(why, who, now, u64::MAX);
    }

    pub(in super::super) fn end_excuse(&mut self, why: Why, who: Option<usize>) {
        let now = self.now;
        for excuse in self
            .excuses
            .iter_mut()
            .filter(|e| e.why == why && e.who == who && e.until == u64::MAX)
        {
            excuse.until = now;
        }
    }

    /// Was there such an excuse at any time between the two?
    pub(in super::super) fn excused(&self, why: &[Why], who: usize, from: u64, to: u64) -> bool {
        self.excuses.iter().any(|e| {
            why.contains(&e.why)
                && e.who.is_none_or(|w| w == who)
                && e.from <= to
                && e.until >= from
        })
    }

    /// How many such excuses touch that time.
    pub(in super::super) fn excuses(&self, why: Why, who: usize, from: u64, to: u64) -> usize {
        self.excuses
            .iter()
            .filter(|e| {
                e.why == why && e.who.is_none_or(|w| w == who) && e.from <= to && e.until >= from
            })
            .count()
    }

    /// Has an excuse that holds now begun at least so long ago?
    pub(in super::super) fn excused_since(&self, why: Why, who: usize, began: u64) -> bool {
        let now = self.now;
        self.excuses.iter().any(|e| {
            e.why == why && e.who.is_none_or(|w| w == who) && e.from <= began && e.until >= now
        })
    }

    pub(in super::super) fn violate(&mut self, what: String) {
        // What a dying acc still says does not count.
        if self.violation.is_none() && !self.crashed {
            self.say(format_args!("VIOLATION: {what}"));
            self.violation = Some(format!("at {}: {what}", self.now));
        }
    }

    pub(in super::super) fn say(&mut self, what: Arguments<'_>) {
        let now = self.now;
        self.trace.push(format!("{now:>9} {what}"));
    }
}
