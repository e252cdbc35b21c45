// Fills buffers outside the heap, up to 2 GiB.
const all = [];
for (let i = 0; i < 128; i++) all.push(Buffer.alloc(16 << 20, "x"));
console.log("had 2 GiB");
