// Recurses 100,000 deep.
const f = (n) => (n === 0 ? 0 : 1 + f(n - 1));
console.log(f(100000));
