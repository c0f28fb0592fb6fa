from __future__ import annotations

import signal

# rackctl leaves a signal ignored that was so when it began, as nohup and a shell's background jobs have it. Its tests
# send signals, and may themselves be run so.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
