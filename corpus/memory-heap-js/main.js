// Fills its heap.
const all = [];
for (let i = 0; i < 2048; i++) all.push(new Array(1 << 17).fill(i + 0.5));
console.log("had 2 GiB");
