// An uncaught exception.
console.log("before");
null.x;
