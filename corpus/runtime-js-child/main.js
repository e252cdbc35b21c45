// Starts a shell from JavaScript.
const { execFileSync } = require("child_process");
console.log(execFileSync("/bin/sh", ["-c", "echo from a shell; id -u"]).toString().split("\n")[0]);
