// A promise is rejected and nobody listens.
Promise.reject(new Error("unheard"));
