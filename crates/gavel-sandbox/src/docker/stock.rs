//! What the pool decides: which container to start next, whom a new one is for, and which ones must go.
//!
//! Values only. Time comes in with each call, and nothing here starts or removes anything: the threads of
//! [`super::pool`] do, and report back. A container counts from the decision to start it until it is gone
//! for good, because until then it may hold its memory.

use super::recipe::Recipe;
use gavel_core::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of a container, and of somebody who waits for one: never used twice.
pub type Id = u64;
pub type Ticket = u64;

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of all containers together.
    pub memory: Bytes,
    pub count: u32,
    /// Containers that are kept ready for each recipe that was announced, however long nobody wants one.
    pub floor: u32,
    /// Recipes that nobody wanted for so long keep no more than that.
    pub idle: Duration,
    /// Start containers before anybody wants them.
    pub ahead: bool,
    /// They come back after use, so that only who finds none ready shows that there are too few.
    pub reuse: bool,
}

/// The time over which demand is measured.
const WINDOW: Duration = Duration::from_secs(10);

/// Of those who came within that time, one in so many finds a container ready that was started for them all
/// together. Starting takes a third of a second, so more would only wait.
const SHARE: usize = 4;

/// Demand that is remembered; beyond it every container that fits is wanted anyway.
const MAX_DEMAND: usize = 256;

/// After a start that failed, and doubled for each further one.
const BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Starts of one recipe that fail in a row before those who wait for it are told.
const PATIENCE: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    Busy,
    Removing,
}

#[derive(Debug)]
struct Held {
    recipe: Arc<Recipe>,
    state: State,
    since: Instant,
    /// Its range of user ids.
    slot: u32,
}

#[derive(Debug, Default)]
struct Shelf {
    announced: bool,
    /// Those who wait, the first in front.
    waiting: VecDeque<Ticket>,
    last_take: Option<Instant>,
    /// When somebody took what must be replaced.
    demand: VecDeque<Instant>,
    failures: u32,
    retry_at: Option<Instant>,
}

/// How a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It would fail every time.
    Final,
    /// The next one may succeed.
    Passing,
    /// No container of any kind can be started now.
    Daemon,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Ready(Id),
    Waiting,
    /// Not even alone would it fit into the bounds.
    TooLarge,
}

/// What a starter does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Start {
        id: Id,
        recipe: Arc<Recipe>,
        slot: u32,
    },
    /// Remove these, to make room.
    Evict(Vec<Id>),
    /// Nothing before this time, unless something happens.
    Nothing(Option<Instant>),
}

#[derive(Debug)]
pub struct Stock {
    bounds: Bounds,
    slots: u32,
    shelves: HashMap<Arc<Recipe>, Shelf>,
    held: BTreeMap<Id, Held>,
    last_id: Id,
    last_slot: u32,
    /// The daemon does not answer: no starts before this time.
    down: Option<(Instant, u32)>,
}

impl Stock {
    /// Containers get user ids from `slots` different ranges; `first` is where to begin.
    pub fn new(bounds: Bounds, slots: u32, first: u32) -> Self {
        Self {
            bounds,
            slots,
            shelves: HashMap::new(),
            held: BTreeMap::new(),
            last_id: 0,
            last_slot: first % slots,
            down: None,
        }
    }

    /// Containers of this recipe will be wanted.
    pub fn announce(&mut self, recipe: Recipe) {
        self.shelves.entry(Arc::new(recipe)).or_default().announced = true;
    }

    /// Somebody wants a container.
    pub fn take(&mut self, recipe: Recipe, ticket: Ticket, now: Instant) -> Taken {
        if recipe.footprint() > self.bounds.memory || self.bounds.count == 0 {
            return Taken::TooLarge;
        }
        let recipe = match self.shelves.get_key_value(&recipe) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(recipe),
        };
        let shelf = self.shelves.entry(Arc::clone(&recipe)).or_default();
        shelf.last_take = Some(now);
        // The one that was ready first, so that none grows old.
        let ready = self.held.iter().filter(|(_, held)| held.state == State::Ready && held.recipe == recipe);
        let ready = ready.min_by_key(|(_, held)| held.since).map(|(id, _)| *id);
        if ready.is_none() || !self.bounds.reuse {
            shelf.demand.push_back(now);
            if shelf.demand.len() > MAX_DEMAND {
                shelf.demand.pop_front();
            }
        }
        match ready {
            Some(id) => {
                self.set(id, State::Busy, now);
                Taken::Ready(id)
            }
            None => {
                shelf.waiting.push_back(ticket);
                Taken::Waiting
            }
        }
    }

    /// Somebody does not wait any more.
    pub fn leave(&mut self, ticket: Ticket) {
        for shelf in self.shelves.values_mut() {
            shelf.waiting.retain(|waiting| *waiting != ticket);
        }
    }

    /// What to start now. What it says to start counts as being started.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some((until, _)) = self.down.filter(|(until, _)| *until > now) {
            return Next::Nothing(Some(until));
        }
        let mut later = None;
        // Whoever has waited longest comes first, and nobody overtakes them: a large container would
        // otherwise never find the room that small ones keep taking.
        if let Some((recipe, retry_at)) = self.longest_waiting() {
            match retry_at.filter(|at| *at > now) {
                Some(at) => later = Some(at),
                None => return self.make_room_and_start(recipe, now),
            }
        }
        if let Some(recipe) = self.most_wanted(now).filter(|recipe| self.fits(recipe)) {
            return self.start(recipe, now);
        }
        Next::Nothing(later)
    }

    /// The recipe of the oldest ticket for which no container is under way.
    fn longest_waiting(&self) -> Option<(Arc<Recipe>, Option<Instant>)> {
        let unserved = |(recipe, shelf): (&Arc<Recipe>, &Shelf)| {
            let coming = self.count(recipe, &[State::Starting]);
            let ticket = shelf.waiting.get(coming).copied()?;
            Some((ticket, Arc::clone(recipe), shelf.retry_at))
        };
        let unserved = self.shelves.iter().filter_map(unserved);
        unserved.min_by_key(|(ticket, ..)| *ticket).map(|(_, recipe, retry_at)| (recipe, retry_at))
    }

    /// The recipe that lacks most of what should be ready.
    fn most_wanted(&self, now: Instant) -> Option<Arc<Recipe>> {
        let lacks = |(recipe, shelf): (&Arc<Recipe>, &Shelf)| {
            if shelf.retry_at.is_some_and(|at| at > now) {
                return None;
            }
            let there = self.count(recipe, &[State::Starting, State::Ready]);
            let wanted = shelf.waiting.len() + self.target(shelf, now);
            let lack = wanted.checked_sub(there).filter(|lack| *lack > 0)?;
            Some((lack, shelf.last_take, Arc::clone(recipe)))
        };
        self.shelves.iter().filter_map(lacks).max().map(|(.., recipe)| recipe)
    }

    /// How many should be ready when nobody waits.
    fn target(&self, shelf: &Shelf, now: Instant) -> usize {
        if !self.bounds.ahead {
            return 0;
        }
        let floor = if shelf.announced { self.bounds.floor as usize } else { 0 };
        let Some(last) = shelf.last_take else { return floor };
        if now.saturating_duration_since(last) >= self.bounds.idle {
            return floor;
        }
        let recent = shelf.demand.iter().filter(|at| now.saturating_duration_since(**at) < WINDOW).count();
        recent.div_ceil(SHARE).max(1).max(floor)
    }

    fn make_room_and_start(&mut self, recipe: Arc<Recipe>, now: Instant) -> Next {
        if self.fits(&recipe) {
            return self.start(recipe, now);
        }
        // Those that go already make room by themselves; of the others the longest idle ones must.
        let mut keeping: Vec<(Instant, Id)> = Vec::new();
        let (mut memory, mut count) = (recipe.footprint().0, 1);
        for (id, held) in self.held.iter().filter(|(_, held)| held.state != State::Removing) {
            memory += held.recipe.footprint().0;
            count += 1;
            if held.state == State::Ready {
                keeping.push((held.since, *id));
            }
        }
        keeping.sort();
        let mut evicted = Vec::new();
        for (_, id) in keeping {
            if memory <= self.bounds.memory.0 && count <= self.bounds.count {
                break;
            }
            memory -= self.held[&id].recipe.footprint().0;
            count -= 1;
            evicted.push(id);
        }
        evicted.iter().for_each(|id| self.set(*id, State::Removing, now));
        if evicted.is_empty() { Next::Nothing(None) } else { Next::Evict(evicted) }
    }

    fn fits(&self, recipe: &Recipe) -> bool {
        let memory: u64 = self.held.values().map(|held| held.recipe.footprint().0).sum();
        self.held.len() < self.bounds.count as usize
            && memory.saturating_add(recipe.footprint().0) <= self.bounds.memory.0
    }

    fn start(&mut self, recipe: Arc<Recipe>, now: Instant) -> Next {
        // At most `bounds.count` are taken, and there are more of them than that.
        let free = (1..=self.slots).map(|step| (self.last_slot + step) % self.slots);
        let Some(slot) = free.into_iter().find(|slot| self.held.values().all(|held| held.slot != *slot)) else {
            return Next::Nothing(None);
        };
        self.last_id += 1;
        self.last_slot = slot;
        let held = Held { recipe: Arc::clone(&recipe), state: State::Starting, since: now, slot };
        self.held.insert(self.last_id, held);
        Next::Start { id: self.last_id, recipe, slot }
    }

    /// A container works, or is as good as new: whose it is now; without anybody it is ready.
    pub fn ready(&mut self, id: Id, now: Instant) -> Option<Ticket> {
        self.down = None;
        let recipe = Arc::clone(&self.held.get(&id)?.recipe);
        let shelf = self.shelves.entry(recipe).or_default();
        (shelf.failures, shelf.retry_at) = (0, None);
        let ticket = shelf.waiting.pop_front();
        self.set(id, if ticket.is_some() { State::Busy } else { State::Ready }, now);
        ticket
    }

    /// A start failed. What it left must still be removed. Returns those who are told.
    pub fn failed(&mut self, id: Id, failure: Failure, now: Instant) -> Vec<Ticket> {
        let Some(held) = self.held.get(&id) else { return Vec::new() };
        let recipe = Arc::clone(&held.recipe);
        self.set(id, State::Removing, now);
        if failure == Failure::Daemon {
            // Those who wait go on doing so: their time is limited, and daemons come back.
            let failures = self.down.map_or(0, |(_, failures)| failures) + 1;
            self.down = Some((now + backoff(failures), failures));
            return Vec::new();
        }
        let shelf = self.shelves.entry(recipe).or_default();
        shelf.failures += 1;
        shelf.retry_at = Some(now + backoff(shelf.failures));
        if failure == Failure::Passing && shelf.failures < PATIENCE {
            return Vec::new();
        }
        // Whoever comes next finds out anew, and nothing is started for nobody until somebody does.
        (shelf.last_take, shelf.demand) = (None, VecDeque::new());
        shelf.waiting.drain(..).collect()
    }

    /// The daemon has answered.
    pub fn up(&mut self) {
        self.down = None;
    }

    pub fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Nobody may use it any more.
    pub fn removing(&mut self, id: Id, now: Instant) {
        self.set(id, State::Removing, now);
    }

    /// It does not exist any more.
    pub fn gone(&mut self, id: Id) {
        self.held.remove(&id);
    }

    /// Ready ones that are not needed any more; they count as being removed. Recipes that are of no use
    /// any more are forgotten.
    pub fn shrink(&mut self, now: Instant) -> Vec<Id> {
        let mut surplus = Vec::new();
        for (recipe, shelf) in &self.shelves {
            let there = self.count(recipe, &[State::Starting, State::Ready]);
            let too_many = there.saturating_sub(shelf.waiting.len() + self.target(shelf, now));
            let ready = self.held.iter().filter(|(_, held)| held.state == State::Ready && held.recipe == *recipe);
            // Only what has been idle for long: demand that falls for a moment may rise again.
            let idle = ready.filter(|(_, held)| now.saturating_duration_since(held.since) >= self.bounds.idle);
            surplus.extend(idle.map(|(id, _)| *id).take(too_many));
        }
        surplus.iter().for_each(|id| self.set(*id, State::Removing, now));
        let Self { shelves, held, bounds, .. } = self;
        shelves.retain(|recipe, shelf| {
            let wanted = shelf.last_take.is_some_and(|last| now.saturating_duration_since(last) < bounds.idle);
            let backing_off = shelf.retry_at.is_some_and(|at| at > now);
            let used = held.values().any(|held| held.recipe == *recipe);
            shelf.announced || wanted || backing_off || used || !shelf.waiting.is_empty()
        });
        surplus
    }

    /// The ready ones.
    pub fn all_ready(&self) -> Vec<Id> {
        self.held.iter().filter(|(_, held)| held.state == State::Ready).map(|(id, _)| *id).collect()
    }

    /// All that may exist.
    pub fn all(&self) -> Vec<Id> {
        self.held.keys().copied().collect()
    }

    fn count(&self, recipe: &Arc<Recipe>, states: &[State]) -> usize {
        self.held.values().filter(|held| held.recipe == *recipe && states.contains(&held.state)).count()
    }

    fn set(&mut self, id: Id, state: State, now: Instant) {
        if let Some(held) = self.held.get_mut(&id) {
            (held.state, held.since) = (state, now);
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF.saturating_mul(1 << (failures - 1).min(10)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn recipe(image: &str, memory: u64) -> Recipe {
        let size = Bytes::mib(1);
        let memory = Bytes(memory << 20);
        let image = image.to_owned();
        Recipe { image, memory, processes: 1, work: size, tmp: size, shm: size, inodes: 1, network: false }
    }

    fn stock(memory: u64, count: u32) -> Stock {
        let bounds =
            Bounds { memory: Bytes::mib(memory), count, floor: 0, idle: 60 * SECOND, ahead: true, reuse: false };
        Stock::new(bounds, 100, 0)
    }

    /// Starts what is to be started now, and says what came of it.
    fn start(stock: &mut Stock, now: Instant) -> Option<(Id, String)> {
        match stock.next(now) {
            Next::Start { id, recipe, .. } => Some((id, recipe.image.clone())),
            _ => None,
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_the_next_ones_find_one_ready() {
        let (mut stock, now) = (stock(1000, 10), Instant::now());
        assert_eq!(stock.take(recipe("a", 10), 1, now), Taken::Waiting);
        assert_eq!(stock.take(recipe("b", 10), 2, now), Taken::Waiting);
        let (a, image) = start(&mut stock, now).unwrap();
        assert_eq!(image, "a");
        let (b, image) = start(&mut stock, now).unwrap();
        assert_eq!(image, "b");
        assert_eq!((stock.ready(b, now), stock.ready(a, now)), (Some(2), Some(1)));
        // One more of each, for whoever comes next; and then no more.
        let (more, image) = start(&mut stock, now).unwrap();
        assert!(start(&mut stock, now).is_some());
        assert_eq!(stock.next(now), Next::Nothing(None));
        assert_eq!(stock.ready(more, now), None);
        assert_eq!(stock.take(recipe(&image, 10), 3, now), Taken::Ready(more));
    }

    #[test]
    fn more_are_kept_ready_the_more_come() {
        let (mut stock, now) = (stock(10_000, 100), Instant::now());
        for ticket in 0..20 {
            stock.take(recipe("a", 10), ticket, now);
        }
        let mut started = 0;
        while let Some((id, _)) = start(&mut stock, now) {
            stock.ready(id, now);
            started += 1;
        }
        assert_eq!((started, stock.all_ready().len()), (25, 5));
        // After a while of nothing they are one, and later none.
        let later = now + 59 * SECOND;
        assert!(stock.shrink(later).is_empty());
        let surplus = stock.shrink(now + 60 * SECOND);
        assert_eq!((surplus.len(), stock.all_ready().len()), (5, 0));
    }

    #[test]
    fn containers_that_come_back_need_no_replacement() {
        let (mut stock, now) = (stock(10_000, 100), Instant::now());
        stock.bounds.reuse = true;
        assert_eq!(stock.take(recipe("a", 10), 0, now), Taken::Waiting);
        let (id, _) = start(&mut stock, now).unwrap();
        stock.ready(id, now);
        let (spare, _) = start(&mut stock, now).unwrap();
        stock.ready(spare, now);
        for ticket in 1..100 {
            stock.ready(id, now);
            assert!(matches!(stock.take(recipe("a", 10), ticket, now), Taken::Ready(_)));
            assert_eq!(stock.next(now), Next::Nothing(None));
        }
    }

    #[test]
    fn an_announced_recipe_has_its_floor_before_and_after_anybody_comes() {
        let (mut stock, now) = (stock(1000, 10), Instant::now());
        stock.bounds.floor = 2;
        stock.announce(recipe("a", 10));
        for _ in 0..2 {
            let (id, _) = start(&mut stock, now).unwrap();
            stock.ready(id, now);
        }
        assert_eq!(stock.next(now), Next::Nothing(None));
        assert!(stock.shrink(now + 600 * SECOND).is_empty());
        // Another recipe has no floor, and is forgotten.
        stock.take(recipe("b", 10), 1, now);
        stock.leave(1);
        stock.shrink(now + 600 * SECOND);
        assert_eq!(stock.shelves.len(), 1);
    }

    #[test]
    fn idle_containers_of_others_make_room_for_those_who_wait() {
        let (mut stock, now) = (stock(100, 10), Instant::now());
        stock.take(recipe("a", 32), 1, now);
        let (busy, _) = start(&mut stock, now).unwrap();
        stock.ready(busy, now);
        let (idle, _) = start(&mut stock, now).unwrap();
        stock.ready(idle, now);
        stock.take(recipe("b", 50), 2, now);
        assert_eq!(stock.next(now), Next::Evict(vec![idle]));
        assert_eq!(stock.next(now), Next::Nothing(None), "it is on its way out");
        stock.gone(idle);
        assert_eq!(start(&mut stock, now).unwrap().1, "b");
    }

    #[test]
    fn a_large_one_is_not_overtaken_by_small_ones() {
        let (mut stock, now) = (stock(100, 10), Instant::now());
        stock.take(recipe("small", 32), 1, now);
        let (busy, _) = start(&mut stock, now).unwrap();
        stock.ready(busy, now);
        stock.take(recipe("large", 90), 2, now);
        stock.take(recipe("other", 8), 3, now);
        assert_eq!(stock.next(now), Next::Nothing(None), "not the other one, though it would fit");
        stock.gone(busy);
        assert_eq!(start(&mut stock, now).unwrap().1, "large");
        assert_eq!(stock.take(recipe("huge", 97), 4, now), Taken::TooLarge);
    }

    #[test]
    fn those_who_wait_are_told_when_it_is_hopeless() {
        let (mut stock, mut now) = (stock(1000, 10), Instant::now());
        stock.take(recipe("a", 10), 1, now);
        for told in [vec![], vec![], vec![1]] {
            let (id, _) = start(&mut stock, now).unwrap();
            assert_eq!(stock.failed(id, Failure::Passing, now), told);
            assert!(!matches!(stock.next(now), Next::Start { .. }), "not at once");
            now += 2 * SECOND;
        }
        assert_eq!(stock.next(now), Next::Nothing(None), "nobody waits any more");
        stock.take(recipe("a", 10), 2, now);
        let (id, _) = start(&mut stock, now).unwrap();
        assert_eq!(stock.failed(id, Failure::Final, now), [2]);
    }

    #[test]
    fn when_the_daemon_is_down_everybody_waits_for_it() {
        let (mut stock, now) = (stock(1000, 10), Instant::now());
        stock.take(recipe("a", 10), 1, now);
        stock.take(recipe("b", 10), 2, now);
        let (id, _) = start(&mut stock, now).unwrap();
        assert!(stock.failed(id, Failure::Daemon, now).is_empty());
        assert_eq!(stock.next(now), Next::Nothing(Some(now + BACKOFF)));
        assert!(stock.is_down());
        let (id, image) = start(&mut stock, now + BACKOFF).unwrap();
        assert_eq!((image.as_str(), stock.ready(id, now)), ("a", Some(1)));
        assert!(!stock.is_down());
    }

    /// Marsaglia's xorshift: the same numbers in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % below
        }
    }

    /// A pool without threads: what was begun ends some steps later, in any order.
    struct World {
        stock: Stock,
        dice: Dice,
        now: Instant,
        starting: Vec<Id>,
        busy: Vec<Id>,
        going: Vec<Id>,
        waiting: Vec<Ticket>,
    }

    impl World {
        fn begin(&mut self, id: Option<Id>, ticket: Option<Ticket>) {
            if let (Some(id), Some(ticket)) = (id, ticket) {
                self.waiting.retain(|waiting| *waiting != ticket);
                self.busy.push(id);
            }
        }

        fn any(dice: &mut Dice, from: &mut Vec<Id>) -> Option<Id> {
            if from.is_empty() {
                return None;
            }
            let at = dice.roll(from.len() as u64) as usize;
            Some(from.swap_remove(at))
        }

        fn step(&mut self, failing: bool) {
            self.now += Duration::from_millis(self.dice.roll(400));
            if self.starting.len() < 2 {
                match self.stock.next(self.now) {
                    Next::Start { id, .. } => self.starting.push(id),
                    Next::Evict(ids) => self.going.extend(ids),
                    Next::Nothing(_) => {}
                }
            }
            match self.dice.roll(5) {
                0 | 1 => {
                    if let Some(id) = Self::any(&mut self.dice, &mut self.starting) {
                        if failing && self.dice.roll(4) == 0 {
                            let kinds = [Failure::Final, Failure::Passing, Failure::Daemon];
                            let told = self.stock.failed(id, kinds[self.dice.roll(3) as usize], self.now);
                            self.waiting.retain(|ticket| !told.contains(ticket));
                            self.going.push(id);
                        } else {
                            let ticket = self.stock.ready(id, self.now);
                            self.begin(Some(id), ticket);
                        }
                    }
                }
                2 => {
                    if let Some(id) = Self::any(&mut self.dice, &mut self.busy) {
                        if self.dice.roll(2) == 0 {
                            let ticket = self.stock.ready(id, self.now);
                            self.begin(Some(id), ticket);
                        } else {
                            self.stock.removing(id, self.now);
                            self.going.push(id);
                        }
                    }
                }
                _ => {
                    if let Some(id) = Self::any(&mut self.dice, &mut self.going) {
                        self.stock.gone(id);
                    }
                    self.going.extend(self.stock.shrink(self.now));
                }
            }
        }

        fn check(&self) {
            let memory: u64 = self.stock.held.values().map(|held| held.recipe.footprint().0).sum();
            assert!(memory <= self.stock.bounds.memory.0, "{memory} bytes");
            assert!(self.stock.held.len() <= self.stock.bounds.count as usize);
            let mut slots: Vec<u32> = self.stock.held.values().map(|held| held.slot).collect();
            slots.sort();
            slots.dedup();
            assert_eq!(slots.len(), self.stock.held.len(), "two containers share a slot");
            let mine = [&self.starting, &self.busy, &self.going].into_iter().map(|ids| ids.len());
            assert_eq!(mine.sum::<usize>() + self.stock.all_ready().len(), self.stock.held.len());
        }
    }

    #[test]
    fn whatever_happens_bounds_hold_and_everybody_is_served_in_the_end() {
        for seed in 1..200 {
            let mut world = World {
                stock: stock(200, 6),
                dice: Dice(seed),
                now: Instant::now(),
                starting: vec![],
                busy: vec![],
                going: vec![],
                waiting: vec![],
            };
            for ticket in 0..300 {
                if world.dice.roll(2) == 0 {
                    let image = ["a", "b", "c"][world.dice.roll(3) as usize];
                    let memory = [10, 40, 150][world.dice.roll(3) as usize];
                    match world.stock.take(recipe(image, memory), ticket, world.now) {
                        Taken::Ready(id) => world.busy.push(id),
                        Taken::Waiting => world.waiting.push(ticket),
                        Taken::TooLarge => panic!("it would fit"),
                    }
                }
                if world.dice.roll(20) == 0 && !world.waiting.is_empty() {
                    let ticket = world.waiting.swap_remove(0);
                    world.stock.leave(ticket);
                }
                world.step(true);
                world.check();
            }
            for _ in 0..20_000 {
                if world.waiting.is_empty() {
                    break;
                }
                world.step(false);
                world.check();
            }
            assert!(world.waiting.is_empty(), "seed {seed}: they wait for ever");
        }
    }
}
