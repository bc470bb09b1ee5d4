"""Starts a program and, at its end, writes what it and everything it waited for cost: PIDFILE, COSTFILE, then the command.
SIGTERM goes on to the program. Threads and children that are gone are only counted here: /proc forgets them."""
import json, os, signal, sys

pid_file, cost_file, *command = sys.argv[1:]
pid = os.fork()
if pid == 0:
    os.execvp(command[0], command)
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
with open(pid_file + ".new", "w") as file:
    file.write(str(pid))
os.rename(pid_file + ".new", pid_file)
_, status, cost = os.wait4(pid, 0)
with open(cost_file, "w") as file:
    json.dump({"cpu_s": cost.ru_utime + cost.ru_stime, "wake_ups": cost.ru_nvcsw, "status": status}, file)
