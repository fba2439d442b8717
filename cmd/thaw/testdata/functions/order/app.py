"""Which hook runs when. Each says so in the log, and in a list that stays in memory."""

import thaw

app = thaw.App("order")

seen = []


def say(name):
    seen.append(name)
    print("*", name)


thaw.before_snapshot(lambda: say("before-1"))
thaw.before_snapshot(lambda: say("before-2"))
thaw.register_reconnect(lambda: say("reconnect"))
thaw.after_restore(lambda: say("after-1"))
thaw.after_restore(lambda: say("after-2"))


class Base:
    @thaw.enter(snap=True)
    def first(self):
        say("base-snap")

    @thaw.enter(snap=True)
    def second(self):
        say("base-snap-overridden")

    @thaw.enter()
    def third(self):
        say("base-enter")

    @thaw.exit()
    def last(self):
        say("base-exit")


@app.cls(enable_memory_snapshot=True, warmup="warm")
class Derived(Base):
    def __init__(self):
        say("init")

    @thaw.enter()
    async def own_enter(self):
        say("own-enter")

    @thaw.enter(snap=True)
    def own_snap(self):
        say("own-snap")

    @thaw.enter(snap=True)
    def second(self):
        say("override")

    @thaw.exit()
    def own_exit(self):
        say("own-exit")

    def warm(self):
        say("warm")

    @thaw.method()
    def seen(self):
        return {"seen": seen, "restored": thaw.is_restored(), "generation": thaw.generation(), "age": thaw.snapshot_age()}
