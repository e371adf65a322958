// Swagger UI over /api/openapi.json, with the token that the page at / was given in this tab.
window.onload = () => {
  const token = sessionStorage.getItem("understudy.token");
  if (!token) {
    const hint = document.createElement("p");
    hint.append("The description needs a token: ", Object.assign(document.createElement("a"), { href: "/", textContent: "give one here" }), ", then come back in the same tab.");
    document.body.prepend(hint);
    return;
  }
  window.ui = SwaggerUIBundle({
    url: "/api/openapi.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    layout: "BaseLayout",
    requestInterceptor: (request) => {
      request.headers.Authorization = `Bearer ${token}`;
      return request;
    },
  });
};
