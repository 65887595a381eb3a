//! The API's question who is furthest behind: asked of every shard in pages, like a list of channels,
//! so that no turn is longer for the number of channels and subscribers.

use crate::base::worst::Worst;
use crate::hub::ask::{Ask, Content, Question};
use crate::hub::lag::Place;
use crate::hub::query::Query;
use crate::hub::users;
use crate::wire::api::{Laggard, Search};

use crate::shard::Engine;
use crate::shard::connections::Pending;

impl Engine {
    /// Has every shard tell who is furthest behind there.
    pub(in crate::shard) fn query_laggards(
        &mut self,
        slot: u32,
        app: u16,
        prefix: &str,
        search: Search,
    ) {
        let query = Query::Laggards {
            app,
            prefix: prefix.into(),
            search,
            worst: Worst::new(search.limit.into()),
        };
        self.connections.waiting(slot).pending = Some(Pending::Query(Box::new(query)));
        for shard in 0..self.mesh.shards() as u16 {
            self.ask_for_laggards(slot, shard, Place::BEGIN);
        }
    }

    /// Asks one shard to look on.
    pub(in crate::shard) fn ask_for_laggards(&mut self, slot: u32, shard: u16, from: Place) {
        let waiting = self.connections[slot].waiting.as_ref();
        let pending = waiting.and_then(|waiting| waiting.pending.as_ref());
        let Some(Pending::Query(query)) = pending else {
            return;
        };
        let Query::Laggards {
            app,
            prefix,
            search,
            ..
        } = &**query
        else {
            return;
        };
        let ask = Ask {
            requester: self.connections.socket(slot),
            app: *app,
            channel: prefix.clone(),
            question: Question::Laggards {
                search: *search,
                from,
            },
        };
        self.ask_shard(shard, ask);
    }

    /// The worst of the next subscribers here. Of a user's watchers nobody knows by that name.
    pub(in crate::shard) fn laggards(
        &self,
        app: u16,
        prefix: &str,
        search: Search,
        from: Place,
    ) -> Content {
        let mut lagging = Vec::new();
        let next = self.look_on(from, &mut lagging, |record| {
            record.app == app
                && record.name.starts_with(prefix)
                && users::watched_id(&record.name).is_none()
        });
        let mut worst = Worst::new(search.limit.into());
        for one in &lagging {
            worst.add(search.by.badness(&one.lag), one);
        }
        let laggards = worst.take().into_iter().map(|(_, one)| Laggard {
            socket_id: self.socket_id(one.slot),
            channel: self.channels[one.channel].name.clone(),
            lag: one.lag,
            state: one.state,
        });
        Content::Laggards {
            laggards: laggards.collect(),
            shard: self.index,
            next,
        }
    }
}
