// A short word at the top of the page that something is done.
import { ElMessage } from "element-plus";
import "element-plus/theme-chalk/el-message.css";

export function say(message: string): void {
  ElMessage({ message, type: "success", duration: 4_000, grouping: true });
}
