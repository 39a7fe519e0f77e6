-- The record and the time that it lives on, of one moment. Not a transaction:
-- a server that is out of memory refuses to queue even reads.
return { redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }
