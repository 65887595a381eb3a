// Lets stock pusher-js miss nothing: what came while its connection was away comes behind the next subscription, and
// what is not retained any more is told by an event `outpour:gap`. To be loaded behind pusher-js, and called at once:
//
//   const pusher = Outpour.recover(new Pusher(key, options));
//   pusher.bind('outpour:gap', ({ channel, epoch, from, to, reason }) => { /* load these another way */ });
//
// A channel is told of its gaps too, before its `pusher:subscription_succeeded`. `to` is null where an epoch is over: then
// everything of it from there on is missed. Reasons:
//
//   evicted      not retained any more
//   epoch        the server has begun a new epoch
//   unknown      the server knows no such serial
//   latest       the page read too slowly and goes on with the newest event, where the channel's policy is so
//   superseded   likewise, and there are newer events with the same keys
//
// pusher-js drops the serial of what it decodes, so messages are read at its transport, ahead of pusher-js itself. What a
// channel has is kept with the channel's object, so it ends where the application unsubscribes: pusher-js makes another object
// for another subscription. Channels without serials are left alone.
(function (root, make) {
  if (typeof module === 'object' && module.exports) module.exports = make();
  else root.Outpour = make();
})(typeof self === 'undefined' ? this : self, function () {
  'use strict';

  const GAP = 'outpour:gap';
  const recovered = new WeakSet();

  /** Has a Pusher remember and resume from now on, and returns it. To be called before it has subscribed to anything. */
  function recover(pusher) {
    const manager = pusher.connection;
    if (!pusher.channel || !manager || !manager.send_event || !manager.bind_global) throw new TypeError('Outpour.recover wants a Pusher of pusher-js');
    if (recovered.has(pusher)) return pusher;
    recovered.add(pusher);

    /** What each channel has got: {epoch, serial}, over which connection {socket_id}, and `request`, the last that it sent to resume. */
    const positions = new WeakMap();
    const positionOf = (name) => positions.get(pusher.channel(name));
    const readers = new WeakSet();

    const send = manager.send_event;
    manager.send_event = function (name, data, channel) {
      const position = name === 'pusher:subscribe' && data ? positionOf(data.channel) : undefined;
      if (!position) return send.call(manager, name, data, channel);
      position.request = data;
      // What the page published itself, without its own connection, does not come back over the next one.
      const resume = { epoch: position.epoch, serial: position.serial, socket_id: position.socket_id };
      return send.call(manager, name, Object.assign({}, data, { resume: resume }), channel);
    };

    // Those who listen globally are called first: a message counts as had before the application can fail on it, and so it
    // does not come twice.
    manager.bind_global(function (name, message) {
      if (name === 'connected') read();
      if (name !== 'message' || !message.channel) return;
      if (message.event === 'pusher_internal:subscription_succeeded') begin(message);
      if (message.event === 'pusher:subscription_error') refuse(message);
      if (message.event === GAP) pass(message);
    });
    if (manager.state === 'connected') read();
    return pusher;

    /** Reads what the connection receives. */
    function read() {
      const transport = manager.connection && manager.connection.transport;
      if (!transport || !transport.bind_global) throw new TypeError('Outpour.recover does not know this version of pusher-js');
      if (readers.has(transport)) return;
      readers.add(transport);
      transport.bind_global(function (name, message) {
        if (name === 'message') count(message.data);
      });
    }

    /** Takes down the serial of a message; quotes within its data are escaped, so most others are not parsed for it. */
    function count(text) {
      if (typeof text !== 'string' || text.indexOf('"serial":') < 0) return;
      let message;
      try {
        message = JSON.parse(text);
      } catch (error) {
        return; // pusher-js reports it.
      }
      const position = positionOf(message.channel);
      // The event that a cache channel repeats is one that it has.
      if (position && message.serial > position.serial) position.serial = message.serial;
    }

    /** A subscription begins: its answer says where, and what is missing before. */
    function begin(message) {
      const channel = pusher.channel(message.channel);
      const at = message.data;
      if (!channel || channel.subscriptionCancelled) return;
      if (!at || !at.epoch) {
        positions.delete(channel);
        return;
      }
      positions.set(channel, { epoch: at.epoch, serial: at.serial, socket_id: manager.socket_id });
      if (at.recovered !== false) return;
      const isOver = at.missed.epoch !== at.epoch;
      tell(channel, at.missed.epoch, at.missed.from, at.missed.to, isOver ? 'epoch' : 'evicted');
      if (isOver && at.serial > 0) tell(channel, at.epoch, 1, at.serial, 'evicted');
    }

    /** A server that knows no such serial is asked again, without one. */
    function refuse(message) {
      const channel = pusher.channel(message.channel);
      const position = positions.get(channel);
      if (!position || !position.request || !message.data || message.data.type !== 'InvalidResume') return;
      positions.delete(channel);
      delete message.channel; // The application has no part in it.
      manager.send_event('pusher:subscribe', position.request);
      tell(channel, position.epoch, position.serial + 1, null, 'unknown');
    }

    /** The server tells of a gap that opened on the way. It names the channel beside the data, which pusher-js does not pass on. */
    function pass(message) {
      const channel = pusher.channel(message.channel);
      const gap = message.data;
      gap.channel = message.channel;
      const position = positions.get(channel);
      if (position && position.epoch === gap.epoch && gap.to > position.serial) position.serial = gap.to;
      // An encrypted channel would try to decrypt it.
      if (channel && channel.name.indexOf('private-encrypted-') === 0) {
        delete message.channel;
        apart(channel, gap);
      }
    }

    function tell(channel, epoch, from, to, reason) {
      const gap = { channel: channel.name, epoch: epoch, from: from, to: to, reason: reason };
      apart(channel, gap);
      apart(pusher.global_emitter, gap);
    }

    /** What fails where the application listens to gaps is its own matter: the subscription goes on. */
    function apart(emitter, gap) {
      try {
        emitter.emit(GAP, gap);
      } catch (error) {
        setTimeout(function () {
          throw error;
        }, 0);
      }
    }
  }

  return { recover: recover };
});
